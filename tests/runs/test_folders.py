"""Run folders: each run has one of its own, and the newest checkpoint is found."""

import shutil

import pytest
from helpers import DIGITS
from processes import CONTEXT, fork

from datamodules import DATASETS, ImageDataModule
from vae import runs
from vae.cli import TrainCLI


def test_each_run_takes_a_folder_of_its_own():
    with pytest.raises(runs.RunError, match="A run's name is that of a folder in lightning_logs, not a path; got a/b"):
        runs.new_run("a/b")
    assert [runs.new_run().name for _ in range(3)] == ["version_0", "version_1", "version_2"]
    assert runs.new_run("mine").name == "mine"
    with pytest.raises(
        runs.RunError, match=r"(?s)lightning_logs/mine exists already.*--run_name mine --ckpt_path last"
    ):
        runs.new_run("mine")


def test_only_best_and_last_are_looked_for(script, run_folder):
    other = run_folder.with_name("version_1") / "checkpoints"
    other.mkdir(parents=True)
    shutil.copy(run_folder / "checkpoints" / "best.ckpt", other / "epoch=4-step=190.ckpt")
    outcome = script("visualizations.py", "--figures", "samples")
    assert outcome.status == 0
    assert "version_0" in outcome.out


def test_a_run_name_that_is_taken(script, run_folder):
    outcome = script("train.py", *DIGITS, "--run_name", "version_0")
    assert outcome.status == 1
    assert "lightning_logs/version_0 exists already" in outcome.err


def train_together(barrier):
    barrier.wait()
    TrainCLI(ImageDataModule, DATASETS, ["--data", "Digits", "--trainer.max_epochs", "1"]).fit()


def test_trainings_that_start_together_take_folders_of_their_own(tmp_path):
    barrier = CONTEXT.Barrier(3)
    processes = [fork(train_together, barrier) for _ in range(3)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    found = sorted(path.parts[-3] for path in tmp_path.glob("lightning_logs/*/checkpoints/last.ckpt"))
    assert found == ["version_0", "version_1", "version_2"]
    for run in (tmp_path / "lightning_logs").iterdir():
        assert len([*run.glob("events.out.tfevents.*")]) == 1
