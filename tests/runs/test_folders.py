"""Run folders: each run has one of its own, one process writes into it, and its checkpoints are found."""

import os
import time

import pytest
from helpers import QUIET
from processes import CONTEXT, fork
from pytorch_lightning import Trainer

from datamodules import DATASETS, Digits, ImageDataModule
from vae import LitVAE, runs
from vae.callbacks import RunLogger
from vae.cli import TrainCLI


def test_each_run_takes_a_folder_of_its_own():
    for name in ("", ".", "..", "last", "a/b", "a\\b", "-a", " a", "a\nb", "a\x1b[2J", "\udcff", "a" * 256, "é" * 128):
        with pytest.raises(
            runs.RunError, match="A run's name is that of a folder in lightning_logs, not a path; got '"
        ):
            runs.new_run(name)
    assert [runs.new_run().name for _ in range(3)] == ["version_0", "version_1", "version_2"]
    assert runs.new_run("mine").name == "mine"
    with pytest.raises(runs.RunError, match=r"lightning_logs/mine exists already\.\nChoose another --run_name$"):
        runs.new_run("mine")  # there is nothing to resume
    checkpoint(runs.ROOT / "mine" / "checkpoints" / "last.ckpt", 1)
    with pytest.raises(
        runs.RunError, match=r"(?s)lightning_logs/mine exists already.*--run_name mine --ckpt_path last"
    ):
        runs.new_run("mine")


def checkpoint(path, age):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (age, age))
    return path


def test_a_checkpoint_is_found_by_path_folder_name_or_last(tmp_path):
    old, new = (runs.ROOT / name / "checkpoints" for name in ("old", "a[1]"))
    for age, path in enumerate((old / "best.ckpt", old / "last.ckpt", new / "best.ckpt", new / "last.ckpt"), start=1):
        checkpoint(path, age)
    (runs.ROOT / "empty").mkdir()
    (runs.ROOT / "notes.txt").touch()
    for folder in ("old", "empty", "data"):  # of these names, but not of runs; the last two have no checkpoint
        (tmp_path / folder).mkdir()
    here = checkpoint(tmp_path / "old" / "model.ckpt", 9)
    for named, expected in {
        (None, None): new / "best.ckpt",
        ("last", None): new / "last.ckpt",
        (None, "old"): old / "best.ckpt",
        ("last", "old"): old / "last.ckpt",
        ("old", None): old / "best.ckpt",
        ("a[1]", None): new / "best.ckpt",
        (str(runs.ROOT / "old"), None): old / "best.ckpt",
        (str(old), None): old / "best.ckpt",
        (str(old / "last.ckpt"), "old"): old / "last.ckpt",
        ("./old", None): here.relative_to(tmp_path),
        (str(tmp_path / old / "last.ckpt"), None): tmp_path / old / "last.ckpt",
    }.items():
        assert runs.find_checkpoint(*named) == expected
        if expected.name != "model.ckpt":
            assert runs.find_checkpoint(*named, resume=True).parent == expected.parent
    for named in ("last", "old", str(old)):
        assert runs.find_checkpoint(named, "old", resume=True) == old / "last.ckpt"
    for named, message in {
        (
            "nowhere",
            None,
        ): "There is no checkpoint 'nowhere': name one that exists, a run's folder, a run's name, or last",
        ("", None): "There is no checkpoint ''",
        (None, ""): "A run's name is that of a folder",
        ("empty", None): "There is no checkpoint 'empty': name one that exists",
        (None, "empty"): "There is no checkpoint in lightning_logs/empty: name",
        ("old", "a[1]"): r"lightning_logs/old/checkpoints/best.ckpt is not of the run a\[1\]: leave out",
    }.items():
        with pytest.raises(runs.RunError, match=message):
            runs.find_checkpoint(*named)


def test_without_best_another_checkpoint_is_used_in_words():
    folder = runs.ROOT / "mine" / "checkpoints"
    for age, name in enumerate(("epoch=1-step=9.ckpt", "epoch=4-step=190.ckpt", "last.ckpt"), start=1):
        path = checkpoint(folder / name, age)
        with pytest.warns(runs.OtherCheckpoint, match=f"lightning_logs/mine has no best.ckpt; {name} is used."):
            assert runs.find_checkpoint() == path
    (folder / "last.ckpt").unlink()
    with pytest.raises(runs.RunError, match=r"There is no last\.ckpt 'mine'"):
        runs.find_checkpoint("mine", resume=True)


def test_a_run_of_a_plain_trainer_is_tested(script):
    Trainer(max_epochs=1, **QUIET).fit(LitVAE(image_shape=(1, 8, 8), hidden_dims=8), Digits())
    (path,) = runs.ROOT.glob("*/checkpoints/*.ckpt")
    assert path.name.startswith("epoch=0-step=")
    with pytest.warns(runs.OtherCheckpoint, match=f"lightning_logs/version_0 has no best.ckpt; {path.name} is used."):
        assert script("test.py", "--num_samples", 1).status == 0
    assert (path.parents[1] / "test_metrics.json").is_file()


def test_one_process_at_a_time_writes_into_a_run(script, run_folder):
    lock = runs.lock_run(run_folder)
    before = {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}
    outcome = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3)
    assert outcome.status == 1
    assert outcome.err.startswith("error: Another process is training lightning_logs/version_0, and only one at a time")
    assert {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()} == before
    lock.release()
    assert script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3).status == 0

    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = fork(hold_lock, run_folder, sender)
    assert receiver.recv() == "locked"
    with pytest.raises(runs.RunError, match="Another process is training"):
        runs.lock_run(run_folder)
    process.kill()
    process.join()
    runs.lock_run(run_folder).release()


def hold_lock(run, sender):
    lock = runs.lock_run(run)
    sender.send("locked")
    time.sleep(1_000)
    lock.release()


def test_a_run_is_locked_from_its_first_moment():
    logger = RunLogger("mine")
    assert logger.version == "mine"
    with pytest.raises(runs.RunError, match="Another process is training"):
        runs.lock_run(runs.ROOT / "mine")
    logger.finalize("failed")
    runs.lock_run(runs.ROOT / "mine").release()


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
