"""What a run has found: its test's metrics, its curves and frames, and what it is."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers import DIGITS
from processes import PROJECT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from datamodules import DATASETS
from vae import runs
from vae.figures import film_frame


def test_test_metrics_are_complete_and_the_same_on_a_copied_checkpoint(script, run_folder, tmp_path):
    sampled = ("--estimator", "importance", "--num_samples", 20)
    assert script("test.py", *sampled).status == 0
    metrics = json.loads((run_folder / "test_metrics.json").read_text())
    assert set(metrics) == {
        *("checkpoint", "split", "measure", "num_samples", "num_images", "elbo", "reconstruction", "kl"),
        *(
            "estimator",
            "log_marginal",
            "log_marginal_stderr",
            "log_marginal_error",
            "unreliable_images",
            "bits_per_dim",
            "bounds",
        ),
        *("effective_sample_size", "effective_sample_size_5_percent", "kl_per_dimension", "active_units"),
        *("mse", "psnr", "ssim", "exact_reconstructions"),
    }
    assert (metrics["measure"], metrics["bits_per_dim"]) == ("cross-entropy", None)
    assert sum(metrics["kl_per_dimension"]) == pytest.approx(metrics["kl"], rel=1e-5)
    assert metrics["bounds"] == {"20": metrics["log_marginal"]}
    assert (metrics["split"], metrics["num_samples"], metrics["num_images"]) == ("test", 20, 300)
    assert metrics["elbo"] < metrics["log_marginal"] < 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(run_folder / "checkpoints" / "best.ckpt", elsewhere / "copy.ckpt")
    shutil.rmtree(tmp_path / "lightning_logs")
    assert (
        script(
            "test.py", "--estimator", "importance", "--num_samples", 20, "--ckpt_path", elsewhere / "copy.ckpt"
        ).status
        == 0
    )
    again = json.loads((elsewhere / "test_metrics.json").read_text())
    assert again.pop("checkpoint") == str(elsewhere / "copy.ckpt")
    assert metrics.pop("checkpoint") == "lightning_logs/version_0/checkpoints/best.ckpt"
    assert again == metrics


def test_there_is_one_file_of_metrics_for_a_checkpoint_and_a_split(script, run_folder):
    quick = ("--num_samples", 2)
    assert script("test.py", *quick).status == 0
    default = (run_folder / "test_metrics.json").read_bytes()
    for ckpt_path, split in (("best.ckpt", "val"), ("last.ckpt", "test"), ("last.ckpt", "val")):
        path = f"lightning_logs/version_0/checkpoints/{ckpt_path}"
        outcome = script("test.py", "--ckpt_path", path, "--split", split, *quick)
        name = f"test_metrics.{ckpt_path.removesuffix('.ckpt')}.{split}.json"
        assert f"Written to lightning_logs/version_0/{name}" in outcome.out
        metrics = json.loads((run_folder / name).read_text())
        assert (metrics["checkpoint"], metrics["split"]) == (path, split)
    assert (run_folder / "test_metrics.json").read_bytes() == default
    assert len([*EventAccumulator(str(run_folder)).Reload().Scalars("workings/test_elbo")]) == 1


def test_a_caption_names_the_run_or_a_copied_checkpoint(run_folder, tmp_path):
    best = runs.best_checkpoint(run_folder)
    (tmp_path / "pretrained").mkdir()
    copied = shutil.copy(best, tmp_path / "pretrained" / "mnist_2d.ckpt")
    lit, data = runs.load_run(best, DATASETS)
    for path, name in ((best, "version_0"), (copied, "pretrained/mnist_2d"), (Path("pretrained/mnist_2d.ckpt"), None)):
        inputs = runs.figure_inputs(path, lit.vae, data, "test", None, DATASETS)
        assert inputs["source"]()["run"] == (name or "pretrained/mnist_2d")
        assert [[*group] for group in inputs["histories"]().values()] == [[name or "pretrained/mnist_2d"]]


def test_damaged_event_files(script, run_folder):
    (events,) = run_folder.glob("events.out.tfevents.*")
    with events.open("ab") as file:
        RecordWriter(file).write(b"no event")
    outcome = script("visualizations.py", "--figures", "learning_curves")
    assert outcome.status == 1
    assert outcome.err == "error: The event files in lightning_logs/version_0 are damaged: its curves cannot be read.\n"


def test_a_test_enters_its_result_beside_the_run(script, run_folder, tmp_path):
    quick = ("--num_samples", 2)
    for _ in range(2):
        script("test.py", *quick)
    found = json.loads((run_folder / "test_metrics.json").read_text())
    events = EventAccumulator(str(run_folder)).Reload()  # TensorBoard lists one run: each folder of events is one
    assert {path.parent for path in run_folder.rglob("*tfevents*")} == {run_folder}
    for name in ("elbo", "log_marginal"):
        assert [event.value for event in events.Scalars(f"workings/test_{name}")] == pytest.approx([found[name]] * 2)
    before = sorted(path.name for path in run_folder.glob("*tfevents*"))
    script("test.py", "--split", "val", *quick)
    assert sorted(path.name for path in run_folder.glob("*tfevents*")) == before
    (tmp_path / "apart").mkdir()
    (run_folder / "checkpoints" / "best.ckpt").rename(tmp_path / "apart" / "model.ckpt")
    assert script("test.py", "--ckpt_path", "apart/model.ckpt", *quick).status == 0
    assert sorted(path.name for path in (tmp_path / "apart").iterdir()) == ["model.ckpt", "test_metrics.json"]


def test_info_tells_what_a_model_is_without_its_data(script, tiny_punks):
    options = ["--model.latent_dim", 3, "--model.hidden_dims", 8, "--seed_everything", 5, "--trainer.max_epochs", 2]
    script("train.py", "--data", "CryptoPunks", *options)
    (tiny_punks / "punks.png").unlink()
    events = script("test.py", "--info")
    assert (events.status, events.err) == (0, "")
    lines = dict(re.split(r" {2,}", line, maxsplit=1) for line in events.out.splitlines())
    assert (lines["data set"], lines["epochs"], lines["--seed_everything"]) == ("CryptoPunks", "2", "5")
    assert (lines["images"], lines["split"]) == ("3 x 24 x 24", "12 train, 4 val, 4 test")
    assert lines["--model.latent_dim"] == "3"
    assert lines["in all"] == f"{1728 * 8 + 8 + 2 * (8 * 3 + 3) + 3 * 8 + 8 + 8 * 1728 + 1728:,} parameters"
    assert re.fullmatch(r"-\d+\.\d{4} nats per image", lines["best val/elbo"])
    assert lines["torch"] == torch.__version__.split("+")[0]


def info(script, ckpt_path):
    """What test.py --info prints, by its first column."""
    told = script("test.py", "--info", "--ckpt_path", ckpt_path)
    assert (told.status, told.err) == (0, "")
    return dict(re.split(r" +", line, maxsplit=1) for line in told.out.splitlines() if line.startswith("--")), told.out


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_the_options_that_info_lists_are_those_of_train(script, network):
    own = ["--model.network", network, "--model.channels", "[4,8]", "--model.decoder_hidden_dims", "[9,7]"]
    own += ["--model.init_output_bias", "true", "--seed_everything", 5]
    assert script("train.py", *DIGITS, *own, "--trainer.max_epochs", 1, "--run_name", "first").status == 0
    first, _ = info(script, "first")
    assert ("--model.channels" in first) == (network == "conv")
    assert "--model.scale" not in first  # which is not the Bernoulli's
    arguments = [part for option in first.items() for part in option]
    again = script("train.py", *arguments, "--trainer.max_epochs", 1, "--run_name", "again")
    assert (again.status, again.err) == (0, "")
    assert info(script, "again")[0] == first


@pytest.mark.parametrize("name", ["mnist_2d", "punks_20d"])
def test_info_claims_nothing_that_a_ready_made_model_does_not_hold(script, name):
    options, text = info(script, PROJECT / "pretrained" / f"{name}.ckpt")
    assert not re.search(r"^split|validation|^\S+ *$", text, re.MULTILINE)
    assert not {"--model.seed", "--data.seed", "--model.image_shape"} & options.keys()
    arguments = [part for option in options.items() for part in option]
    assert script("train.py", *arguments, "--print_config").status == 0


def test_info_says_that_there_was_no_validation(script, tiny_mnist):
    options = ["--data.val_size", 0, "--trainer.max_epochs", 1, "--model.hidden_dims", 4, "--run_name", "mine"]
    assert script("train.py", *options).status == 0
    _, text = info(script, "mine")
    assert re.search("^best val/elbo +none: no validation$", text, re.MULTILINE)
    assert re.search("^split +60 train, 0 val, 20 test$", text, re.MULTILINE)


def test_a_runs_curves_and_frames_can_be_read_back(events):
    run = Path("lightning_logs/version_0")
    history = runs.read_history(run)
    assert history["val/elbo"] == {epoch: event.value for epoch, event in enumerate(events.Scalars("val/elbo"), 1)}
    assert history["images_seen"] == {epoch: 1197 * epoch for epoch in range(1, 6)}
    frames = runs.read_frames(run)
    assert [*frames] == [1, 2, 3, 4, 5]
    lit, _ = runs.load_run(runs.last_checkpoint(run), DATASETS)
    assert torch.equal(frames[5], film_frame(lit.vae))
    assert runs.read_history(run / "checkpoints") == {}
    runs.frame_path(run, 3).write_bytes(b"no image")
    with pytest.raises(runs.RunError, match="000003.png is damaged, or too large for a film: delete it"):
        runs.read_frames(run)
