"""python3 -m vae.runs: all runs side by side."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import DIGITS
from processes import PROJECT


def side_by_side(*options):
    return subprocess.run(
        [sys.executable, "-m", "vae.runs", *options],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )


@pytest.fixture
def one_run(script):
    assert script("train.py", *DIGITS, "--trainer.max_epochs", 1, "--run_name", "b").status == 0
    return Path("lightning_logs/b")


@pytest.fixture
def three_runs(script):
    """Two runs that differ in their seed alone, tested, and one with another latent space."""
    for name, seed, latent_dim in (("a0", 0, 2), ("a1", 1, 2), ("b", 0, 5)):
        options = ["--run_name", name, "--seed_everything", seed, "--model.latent_dim", latent_dim]
        assert script("train.py", *DIGITS, "--trainer.max_epochs", 2, *options).status == 0
    for name in ("a0", "a1"):
        assert script("test.py", "--ckpt_path", name, "--num_samples", 5).status == 0


def test_runs_of_several_seeds_are_one_row_with_mean_and_standard_deviation(three_runs):
    done = side_by_side("--csv")
    assert done.returncode == 0, done.stderr
    both, other = csv.DictReader(io.StringIO(done.stdout))
    assert (both["run"], both["seeds"], both["model.latent_dim"]) == ("a0 a1", "0 1", "2")
    assert (other["run"], other["model.latent_dim"], other["test ELBO"]) == ("b", "5", "")
    assert not {"model.activation", "trainer.max_epochs"} & both.keys()  # they do not differ
    logs = Path("lightning_logs")
    elbo = torch.tensor([json.loads((logs / name / "test_metrics.json").read_text())["elbo"] for name in ("a0", "a1")])
    assert both["test ELBO"] == f"{elbo.mean():.2f} ± {elbo.std():.2f}"
    table = side_by_side().stdout
    assert "latent_dim 5" in table
    assert "a0 a1" in table


def damage_settings(run, old, new):
    path = run / "config.yaml"
    path.write_text(path.read_text().replace(old, new))


DAMAGES = {
    "nonsense": lambda run: (run / "config.yaml").write_text("nonsense"),
    "no settings": lambda run: (run / "config.yaml").unlink(),  # as of a Trainer without train.py
    "no class": lambda run: damage_settings(run, "class_path", "path"),
    "cut": lambda run: (run / "test_metrics.json").write_text("{"),
    "list": lambda run: (run / "test_metrics.json").write_text("[1]"),
    "text": lambda run: (run / "test_metrics.json").write_text('{"elbo": "high"}'),
    "nan": lambda run: (run / "test_metrics.json").write_text('{"elbo": NaN}'),
    "bytes": lambda run: (run / "test_metrics.json").write_bytes(b"\xff"),
    "epoch": lambda run: torch.save({"epoch": "one"}, run / "checkpoints/best.ckpt"),
    "callbacks": lambda run: torch.save({"epoch": 1, "callbacks": [3]}, run / "checkpoints/best.ckpt"),
}


def test_a_damaged_run_is_named_and_left_out(one_run):
    for name, damage in DAMAGES.items():
        damage(Path(shutil.copytree(one_run, one_run.with_name(name))))
    shutil.copytree(one_run, one_run.with_name("dangling"))
    for path in one_run.with_name("dangling").glob("checkpoints/*.ckpt"):  # a run without a checkpoint: none
        path.unlink()
        path.symlink_to("nowhere")
    done = side_by_side("--csv")
    assert len(done.stdout.splitlines()) == 2
    for line, name in zip(done.stderr.splitlines(), sorted(DAMAGES), strict=True):
        assert line.startswith(f"left out: lightning_logs/{name}")


def test_texts_of_an_untrusted_run_are_shown_as_they_are(one_run):
    shutil.copytree(one_run, one_run.with_name("other"))
    damage_settings(one_run, "likelihood: bernoulli", 'likelihood: "[/red]\\e[31m"')
    table = side_by_side()
    assert table.returncode == 0, table.stderr
    assert "likelihood [/red]?[31m" in table.stdout


def test_what_only_some_seeds_have_is_counted_and_other_first_weights_are_another_row(three_runs, script):
    Path("lightning_logs/a1/test_metrics.json").unlink()
    options = [*DIGITS, "--trainer.max_epochs", 2, "--run_name", "c", "--init_from", "b", "--model.latent_dim", 5]
    assert script("train.py", *options).status == 0
    both, b, c = csv.DictReader(io.StringIO(side_by_side("--csv").stdout))
    assert both["test ELBO"].endswith(" (1 of 2)")
    assert (b["init_from"], c["init_from"]) == ("", "b")


def test_no_runs():
    done = side_by_side()
    assert done.returncode == 2
    assert "there is no run with a checkpoint in lightning_logs" in done.stderr
