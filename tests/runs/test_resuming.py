"""A run that is resumed ends as one that was not interrupted, or is refused and left as it was."""

import re
import shlex
import shutil
import warnings
from functools import wraps
from pathlib import Path

import pytest
import torch
import yaml
from helpers import DIGITS
from pytorch_lightning.callbacks import Timer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vae import VAE, LitVAE, runs


def test_a_refused_resume_changes_nothing(script, run_folder):
    before = {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}
    for option, value, begun in (
        ("--model.latent_dim", 5, 2),
        ("--model.learning_rate", 0.5, 0.001),
        ("--data.batch_size", 9, 100),
        ("--seed_everything", 9, 0),
        ("--init_from", "version_0", None),
        ("--data", "MNIST", "Digits"),
    ):
        outcome = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3, option, value)
        assert outcome.status == 1
        assert outcome.err.startswith(f"error: {option} is {value}, but the run began with {begun}.\n")
    for content in ([1], {"state_dict": {}}):
        torch.save(content, run_folder / "checkpoints" / "last.ckpt")
        outcome = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3)
        assert outcome.status == 1
        assert "is not a checkpoint that this project's train.py wrote" in outcome.err
    (run_folder / "checkpoints" / "last.ckpt").write_bytes(before[run_folder / "checkpoints" / "last.ckpt"])
    assert {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()} == before


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


def content_of(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def weights(run):
    return torch.load(runs.last_checkpoint(run), weights_only=True)["state_dict"]


def curves(run):
    """By step: names of files that are made in one second do not sort by their counter, 10 comes before 9."""
    events = EventAccumulator(str(run)).Reload()
    clock = ("workings/epoch_seconds", "workings/images_per_second")
    return {
        tag: sorted((event.step, event.value) for event in events.Scalars(tag))
        for tag in events.Tags()["scalars"]
        if tag not in clock
    }


def test_a_run_that_stops_within_an_epoch_is_resumed_at_its_start(script):
    """So that it ends as an uninterrupted one, to the last bit."""
    whole, parts = (Path("lightning_logs") / name for name in ("whole", "parts"))
    common = [*DIGITS, "--data.steps_per_block", 5, "--trainer.max_epochs", 3]
    script("train.py", *common, "--run_name", "whole")
    stopped = script("train.py", *common, "--run_name", "parts", "--trainer.max_steps", 17)
    assert stopped.status == 0
    assert "Stopped   by max_steps in epoch 2 after 5 of 12 steps; last.ckpt holds 1 whole epoch\n" in stopped.out
    for name in ("best", "last"):
        assert torch.load(parts / "checkpoints" / f"{name}.ckpt", weights_only=True)["epoch"] == 0
    assert curves(parts)["workings/images_seen"] == [(11, 1197), (16, 1697)]
    resume = ["train.py", "--ckpt_path", "last", "--run_name", "parts", "--trainer.max_steps"]
    again = script(*resume, 30)
    assert "Stopped   by max_steps in epoch 3 after 6 of 12 steps; last.ckpt holds 2 whole epochs\n" in again.out
    assert script(*resume, -1).status == 0
    assert all(torch.equal(weights(whole)[name], weights(parts)[name]) for name in weights(whole))
    assert curves(whole) == curves(parts)
    assert curves(whole)["workings/images_seen"] == [(11, 1197), (23, 2 * 1197), (35, 3 * 1197)]


SLOW = pytest.mark.slow
OPTIONS = [
    pytest.param([], marks=SLOW),
    pytest.param(["--trainer.check_val_every_n_epoch", 2], marks=SLOW),
    pytest.param(["--trainer.limit_train_batches", 2], marks=SLOW),
    pytest.param(["--trainer.val_check_interval", 2], marks=SLOW),
    ["--trainer.val_check_interval", 4, "--trainer.check_val_every_n_epoch", "null"],
    pytest.param(["--trainer.precision", "16-mixed", "--model.gradient_clip_val", 1], marks=SLOW),
    pytest.param(["--trainer.precision", "bf16-mixed"], marks=SLOW),
]


@pytest.mark.parametrize("limit", ["max_epochs", "max_steps"])
@pytest.mark.parametrize("options", OPTIONS)
def test_what_is_restored_is_all_there_is(script, options, limit):
    """The loops are built anew of epoch, blocks and steps: weights, optimiser, scaler and curves end the same."""
    steps = 8 if "--trainer.limit_train_batches" in options else 12
    common = [*DIGITS, "--data.steps_per_block", 4, *options]
    common += [] if limit == "max_epochs" else ["--trainer.max_epochs", -1]
    ends = [n * (1 if limit == "max_epochs" else steps) for n in (3, 5)]
    whole, parts = (Path("lightning_logs") / name for name in ("whole", "parts"))
    assert script("train.py", *common, "--run_name", "whole", f"--trainer.{limit}", ends[1]).status == 0
    assert script("train.py", *common, "--run_name", "parts", f"--trainer.{limit}", ends[0]).status == 0
    assert script("train.py", "--ckpt_path", "parts", f"--trainer.{limit}", ends[1]).status == 0
    expected, found = (torch.load(runs.last_checkpoint(run), weights_only=True) for run in (whole, parts))
    same = ("state_dict", "optimizer_states", "epoch", "global_step", "MixedPrecision")
    for name in same:
        torch.testing.assert_close(found.get(name), expected.get(name), rtol=0, atol=0)
    assert found["callbacks"]["Throughput"] == expected["callbacks"]["Throughput"]
    assert curves(parts) == curves(whole)


@pytest.mark.parametrize("steps", [7, 12])  # within an epoch, and after its last step but before its end
def test_a_checkpoint_within_an_epoch_is_not_resumed(script, steps):
    own = ["--trainer.callbacks", "ModelCheckpoint", "--trainer.callbacks.every_n_train_steps", steps]
    own += ["--trainer.callbacks.filename", "own", "--trainer.callbacks.save_top_k", -1]
    trained = script("train.py", *DIGITS, "--data.steps_per_block", 1, "--trainer.max_epochs", 1, *own)
    assert trained.status == 0
    run = Path("lightning_logs/version_0")
    before, config = content_of(run), ["--config", run / "config.yaml"]
    within = run / "checkpoints" / "own.ckpt"
    outcome = script("train.py", *config, "--ckpt_path", within, "--trainer.max_epochs", 2)
    assert outcome.status == 1
    reason = f"error: {within} was written within epoch 1, after step {steps}, "
    assert outcome.err.startswith(f"{reason}and training resumes at the start of an epoch.\nResume it: ")
    assert outcome.err.endswith(f"--ckpt_path {runs.last_checkpoint(run)}\n")
    assert content_of(run) == before
    assert "0 and a part of the next, up to step" in script("test.py", "--ckpt_path", within, "--info").out


def test_a_run_that_max_time_stops_has_whole_epochs_only(script, monkeypatch):
    def expire(step):
        def check(timer, trainer, *_):
            if trainer.global_step >= step:
                timer._duration = 0
                timer._check_time_remaining(trainer)

        monkeypatch.setattr(Timer, "on_train_batch_end", check)

    common = [*DIGITS, "--data.steps_per_block", 5, "--trainer.max_epochs", 3, "--trainer.max_time", "00:01:00:00"]
    expire(5)
    stopped = script("train.py", *common)
    assert (
        "Stopped   by max_time in epoch 1 after 5 of 12 steps; there is no checkpoint to resume from\n" in stopped.out
    )
    expire(24)
    stopped = script("train.py", *common, "--run_name", "longer")
    assert "Trained   2 epochs in" in stopped.out
    assert "Stopped   by max_time after epoch 2 of 3\n" in stopped.out
    checkpoint = torch.load(runs.last_checkpoint(Path("lightning_logs/longer")), weights_only=True)
    checkpoint["callbacks"]["Timer"]["time_elapsed"]["train"] = 3601.0
    torch.save(checkpoint, runs.last_checkpoint(Path("lightning_logs/longer")))
    again = script("train.py", "--ckpt_path", "longer")
    assert "Trained   nothing: the run has 2 epochs, and max_time ends it there\n" in again.out
    expire(99)
    assert script("train.py", "--ckpt_path", "longer", "--trainer.max_time", "00:02:00:00").status == 0
    assert torch.load(runs.last_checkpoint(Path("lightning_logs/longer")), weights_only=True)["epoch"] == 2


def test_what_ended_a_run_between_two_epochs_is_named(script):
    stopping = ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/elbo"]
    stopping += ["--trainer.callbacks.mode", "max", "--trainer.callbacks.stopping_threshold", "-1000"]
    stopped = script("train.py", *DIGITS, "--trainer.max_epochs", 3, *stopping)
    assert "Trained   1 epoch in" in stopped.out
    reason = r"Stopping threshold reached: val/elbo = -\d+\.\d+ > -1000\.0\."
    assert re.search(rf"Stopped   by EarlyStopping after epoch 1 of 3: {reason}\n", stopped.out)
    assert re.search(r"Best      validation ELBO -\d+\.\d\d nats per image in epoch 1, of a", stopped.out)
    stopped = script("train.py", *DIGITS, "--trainer.max_epochs", -1, "--trainer.max_steps", 12)
    assert "Stopped   by max_steps after epoch 1\n" in stopped.out
    again = script("train.py", "--ckpt_path", "last")
    assert "Trained   nothing: the run has its 12 steps; --trainer.max_steps 24 goes further\n" in again.out
    fewer = script("train.py", "--ckpt_path", "last", "--trainer.max_steps", 10)
    assert fewer.status == 1
    assert re.fullmatch(r"error: --trainer.max_steps is 10, but \S+/last.ckpt holds 12 steps already.\n", fewer.err)


@pytest.mark.parametrize("option", ["--trainer.fast_dev_run", "--trainer.enable_checkpointing"])
def test_without_a_checkpoint_the_next_command_is_not_printed(script, run_folder, option):
    trained = script("train.py", *DIGITS, "--trainer.max_epochs", 1, f"{option}={option.endswith('run')}")
    assert trained.status == 0
    assert "test.py" not in trained.out


def test_the_printed_command_resumes_and_says_what_it_leaves_out(script):
    name = "it's [two] words"
    own = ["--trainer.callbacks", "pytorch_lightning.callbacks.LearningRateMonitor"]
    common = ["--trainer.limit_val_batches", 2, "--seed_everything", 3]
    assert script("train.py", *DIGITS, *common, *own, "--trainer.max_epochs", 1, "--run_name", name).status == 0
    run = Path("lightning_logs") / name
    python, *command = shlex.split(runs.how_to_resume(run).removeprefix("Resume it: "))
    last = re.escape(str(runs.last_checkpoint(run)))
    with pytest.warns(runs.SettingsLeftOut, match=f"{last}: left out --trainer.callbacks; "):
        assert script(*command, "--trainer.max_epochs", 2).status == 0
    checkpoint = torch.load(runs.last_checkpoint(run), weights_only=True)
    model, trainer = checkpoint["settings"]["model"], checkpoint["settings"]["trainer"]
    assert (model["hidden_dims"], model["seed"], trainer["limit_val_batches"], checkpoint["epoch"]) == (32, 3, 2, 1)
    assert script(*command, *own, "--trainer.max_epochs", 3).status == 0


@pytest.mark.parametrize("older", [False, True])
def test_a_run_resumes_from_its_checkpoint_alone(script, run_folder, tmp_path, older):
    """Without config.yaml, in another folder, and of a version whose checkpoints held no settings."""
    (run_folder / "config.yaml").unlink()
    moved = run_folder.joinpath("checkpoints", "last.ckpt").rename(tmp_path / "moved.ckpt")
    if older:
        checkpoint = torch.load(moved, weights_only=True)
        del checkpoint["settings"]
        torch.save(checkpoint, moved)
    with warnings.catch_warnings(record=True) as warned:
        resumed = script("train.py", "--ckpt_path", moved, "--run_name", "there", "--trainer.max_epochs", 3)
    assert resumed.status == 0, resumed.err
    assert any("holds no options of the Trainer" in str(each.message) for each in warned) == older
    assert script("train.py", *DIGITS, "--trainer.max_epochs", 3, "--run_name", "whole").status == 0
    there, whole = (weights(Path("lightning_logs") / name) for name in ("there", "whole"))
    assert all(torch.equal(there[name], whole[name]) for name in whole)


def test_a_resume_reads_its_checkpoint_once_and_builds_one_model(script, run_folder, monkeypatch):
    """Beside a model without memory that the sizes of the weights are compared with."""
    loads, devices = [], []
    load, build = torch.load, VAE.__init__

    def counted_load(path, *args, **kwargs):
        loads.append(path)
        return load(path, *args, **kwargs)

    @wraps(build)
    def counted_build(vae, *args, **kwargs):
        devices.append(torch.empty(0).device.type)
        build(vae, *args, **kwargs)

    monkeypatch.setattr("torch.load", counted_load)
    monkeypatch.setattr(VAE, "__init__", counted_build)
    assert script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3).status == 0
    assert len(loads) == 3  # of last.ckpt all, of best.ckpt its score, in the end its epoch
    assert devices == ["meta", "cpu"]


def test_what_a_resumed_step_runs_into_is_not_called_damage(script, run_folder, monkeypatch):
    def out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")

    monkeypatch.setattr(LitVAE, "training_step", out_of_memory)
    outcome = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3)
    assert outcome.status == 1
    assert outcome.err == (
        "error: CUDA out of memory. Tried to allocate 20 GiB.\n"
        "Resume it: python3 train.py --ckpt_path lightning_logs/version_0/checkpoints/last.ckpt\n"
    )
    monkeypatch.setattr(LitVAE, "training_step", lambda *_: raise_(ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3)


def raise_(error):
    raise error


def test_a_folder_named_like_lightning_hides_no_traceback(script, tmp_path, monkeypatch):
    folder = tmp_path / "pytorch_lightning_vae"
    folder.mkdir()
    (folder / "bug.py").write_text(
        "from pytorch_lightning import Callback\n"
        "class Bug(Callback):\n"
        "    def on_train_start(self, trainer, lit):\n"
        "        raise ValueError('a bug')\n"
    )
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(ValueError, match="a bug"):
        script("train.py", *DIGITS, "--trainer.max_epochs", 1, "--trainer.callbacks", "bug.Bug")


def test_a_hyper_parameter_that_the_run_did_not_have_takes_its_default(script, run_folder):
    checkpoint = torch.load(runs.last_checkpoint(run_folder), weights_only=True)
    model, data = checkpoint["settings"]["model"], checkpoint["settings"]["data"]
    del model["beta_warmup_epochs"], model["init_std"], data["options"]["batch_size"]
    torch.save(checkpoint, runs.last_checkpoint(run_folder))
    resume = ["train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3]
    refused = script(*resume, "--model.beta_warmup_epochs", 3)
    assert refused.err.startswith("error: --model.beta_warmup_epochs is 3.0, but the run began with 0.0.\n")
    assert script(*resume).status == 0
    assert torch.load(runs.last_checkpoint(run_folder), weights_only=True)["epoch"] == 2


def test_resuming_an_older_checkpoint_removes_the_later_frames(script, run_folder):
    older = shutil.copy(runs.last_checkpoint(run_folder), run_folder / "checkpoints" / "older.ckpt")
    assert script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 5).status == 0
    assert [*runs.read_frames(run_folder)] == [1, 2, 3, 4, 5]
    best = (run_folder / "checkpoints" / "best.ckpt").read_bytes()
    assert script("train.py", "--ckpt_path", older, "--trainer.max_epochs", 3).status == 0
    assert [*runs.read_frames(run_folder)] == [1, 2, 3]
    assert (run_folder / "checkpoints" / "best.ckpt").read_bytes() == best  # of an epoch that is better than the third


def test_a_resume_to_fewer_epochs_changes_nothing(script, run_folder):
    before = content_of(run_folder)
    refused = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 1)
    assert refused.status == 1
    assert re.fullmatch(r"error: --trainer.max_epochs is 1, but \S+/last.ckpt holds 2 epochs already.\n", refused.err)
    other = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3, "--model.likelihood", "gaussian")
    assert other.status == 1
    assert content_of(run_folder) == before
    assert script("train.py", "--ckpt_path", "last").status == 0
    assert script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3).status == 0
    assert yaml.safe_load((run_folder / "config.yaml").read_text())["trainer"]["max_epochs"] == 3
