"""python3 -m vae.runs: all runs side by side."""

import csv
import io
import json
import os
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


def test_a_damaged_run_is_named_and_left_out(three_runs):
    Path("lightning_logs/b/config.yaml").write_text("nonsense")
    done = side_by_side("--csv")
    assert "left out: lightning_logs/b/config.yaml is not a file that this project's train.py wrote." in done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_no_runs():
    done = side_by_side()
    assert done.returncode == 2
    assert "there is no run with a checkpoint in lightning_logs" in done.stderr
