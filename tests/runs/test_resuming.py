"""A run that is resumed ends as one that was not interrupted, or is refused and left as it was."""

import torch
from helpers import DIGITS


def test_resuming_goes_on_in_the_same_folder_to_the_same_weights(script, tmp_path):
    script("train.py", *DIGITS, "--trainer.max_epochs", 3, "--run_name", "whole")
    script("train.py", *DIGITS, "--trainer.max_epochs", 2, "--run_name", "parts")
    resumed = script("train.py", "--ckpt_path", "last", "--run_name", "parts", "--trainer.max_epochs", 3)
    assert resumed.status == 0
    assert "lightning_logs/parts" in resumed.out
    weights = [
        torch.load(f"lightning_logs/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "parts")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert sorted(path.name for path in (tmp_path / "lightning_logs").iterdir()) == ["parts", "whole"]
    names = sorted(path.name for path in (tmp_path / "lightning_logs" / "parts" / "checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt"]


def test_resuming_from_a_truncated_checkpoint(script, run_folder):
    last = run_folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    outcome = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3)
    assert outcome.status == 1
    assert "last.ckpt cannot be read as a checkpoint" in outcome.err
    assert last.stat().st_size == 5000


def test_a_refused_resume_changes_nothing(script, run_folder):
    before = {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}
    for option, value, begun in (
        ("--model.latent_dim", 5, 2),
        ("--model.learning_rate", 0.5, 0.001),
        ("--data.batch_size", 9, 100),
    ):
        outcome = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3, option, value)
        assert outcome.status == 1
        assert outcome.err.startswith(f"error: {option} is {value}, but the run began with {begun}.\n")
    for content in (torch.zeros(3), [1], None, {}, {"state_dict": {}}):
        torch.save(content, run_folder / "checkpoints" / "last.ckpt")
        outcome = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3)
        assert outcome.status == 1
        assert "is not a checkpoint that this project's train.py wrote" in outcome.err
    (run_folder / "checkpoints" / "last.ckpt").write_bytes(before[run_folder / "checkpoints" / "last.ckpt"])
    assert {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()} == before


def test_a_cosine_schedule_ends_with_its_run(script):
    script("train.py", *DIGITS, "--trainer.max_epochs", 1, "--model.lr_schedule", "cosine")
    outcome = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert outcome.status == 1
    assert "A cosine schedule ends with its run, here after 1 epochs; it cannot go on to 2." in outcome.err


def test_a_moved_run_keeps_its_best_epoch(script, tmp_path, run_folder):
    """An epoch that is worse than the best so far, after the folder was renamed."""
    moved = run_folder.rename(run_folder.with_name("moved"))
    best = (moved / "checkpoints" / "best.ckpt").read_bytes()
    last = torch.load(moved / "checkpoints" / "last.ckpt", weights_only=True)
    last["state_dict"]["vae.likelihood.logits.0.bias"] += 5
    torch.save(last, moved / "checkpoints" / "last.ckpt")
    outcome = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3)
    assert outcome.status == 0
    assert (moved / "checkpoints" / "best.ckpt").read_bytes() == best
    assert torch.load(moved / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 2
