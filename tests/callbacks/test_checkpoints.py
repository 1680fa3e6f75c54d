"""Checkpoints: which epochs they are of, and that a failure leaves those that were there."""

import errno
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import DIGITS, QUIET, fit
from pytorch_lightning import Callback, Trainer
from torch.utils.data import DataLoader, IterableDataset

from datamodules import DATASETS, MNIST, Digits
from vae import LitVAE, runs
from vae.callbacks import (
    AtomicCheckpointIO,
    BestCheckpoint,
    LastCheckpoint,
    RunLogger,
    TensorBoardImages,
    Throughput,
)


def test_best_is_the_highest_bound_and_last_the_last_epoch():
    """A model that is wrecked after its third epoch tells the two apart."""
    bounds = []

    class Wreck(Callback):
        def on_validation_end(self, trainer, lit):
            bounds.append(trainer.callback_metrics["val/elbo"].item())

        def on_train_epoch_start(self, trainer, lit):
            if trainer.current_epoch == 3:
                lit.vae.likelihood.logits[0].bias.data.add_(5.0)

    callbacks = [BestCheckpoint(), Wreck(), Throughput(), TensorBoardImages()]
    _, trainer = fit(Digits(), epochs=5, logger=RunLogger("wreck"), callbacks=callbacks)
    assert np.argmax(bounds) == 2
    epochs = {
        name: torch.load(f"lightning_logs/wreck/checkpoints/{name}.ckpt", weights_only=True)["epoch"]
        for name in ("best", "last")
    }
    assert epochs == {"best": 2, "last": 4}
    assert runs.find_checkpoint() == Path("lightning_logs/wreck/checkpoints/best.ckpt")


class Stream(IterableDataset):
    """Batches of images, without a number of them."""

    def __init__(self, images, epochs):
        self.batches = images.split(10) * epochs

    def __iter__(self):
        yield from self.batches


@pytest.mark.parametrize(
    ("epochs_a_pass", "max_steps", "saved"),
    [
        (1, -1, (1, 6)),  # of two epochs of three steps, the last
        (1, 4, (0, 3)),  # not the one that was cut off
        (9, 4, (0, 4)),  # the first that has no end
    ],
)
def test_last_of_a_loader_without_a_length(epochs_a_pass, max_steps, saved):
    loader = DataLoader(Stream(Digits().images("train", 30), epochs_a_pass), batch_size=None)
    last, limits = LastCheckpoint(), {"max_epochs": 2, "max_steps": max_steps}
    trainer = Trainer(**limits, logger=False, callbacks=[last], **QUIET)
    trainer.fit(LitVAE(image_shape=(1, 8, 8), hidden_dims=4), loader)
    checkpoint = torch.load(last.best_model_path, weights_only=True)
    assert (checkpoint["epoch"], checkpoint["global_step"]) == saved


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.val_check_interval", 2],
        ["--trainer.val_check_interval", 5, "--trainer.check_val_every_n_epoch", "null"],
        ["--trainer.max_time", "00:01:00:00"],  # when it is over, it validates within the epoch and ends
    ],
)
def test_best_holds_the_weights_that_its_score_was_measured_on(script, monkeypatch, options):
    """Also where validation and the end of an epoch fall apart: three blocks of four steps an epoch."""

    def expire(timer, trainer, *_):
        timer._duration = 0
        timer._check_time_remaining(trainer)

    monkeypatch.setattr("pytorch_lightning.callbacks.Timer.on_train_batch_end", expire)
    outcome = script("train.py", *DIGITS, "--trainer.max_epochs", 3, "--data.steps_per_block", 4, *options)
    best = runs.best_checkpoint(Path("lightning_logs/version_0"))
    score = torch.load(best, weights_only=True)["callbacks"]["best"]["best_model_score"].item()
    assert f"{score:.2f} nats" in outcome.out
    lit, data = runs.load_run(best, DATASETS)
    (found,) = Trainer(logger=False, enable_checkpointing=False, **QUIET).validate(lit, data, verbose=False)
    assert found["val/elbo"] == pytest.approx(score, abs=1e-4)


def test_without_validation_there_is_the_last_epoch(tiny_mnist):
    fit(MNIST(val_size=0), logger=RunLogger(), callbacks=[BestCheckpoint()])
    with pytest.warns(runs.OtherCheckpoint, match=r"lightning_logs/version_0 has no best\.ckpt; last\.ckpt is used\."):
        assert runs.find_checkpoint() == Path("lightning_logs/version_0/checkpoints/last.ckpt")


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_good_checkpoint(script, tmp_path):
    assert script("train.py", *DIGITS, "--trainer.max_epochs", 1, "--run_name", "mad").status == 0
    checkpoints = tmp_path / "lightning_logs" / "mad" / "checkpoints"
    before = {path.name: path.read_bytes() for path in checkpoints.iterdir()}
    options = ["--data", "Digits", "--model.learning_rate", 1e30, "--model.likelihood", "gaussian"]
    outcome = script("train.py", *options, "--run_name", "wild", "--trainer.max_epochs", 2)
    assert outcome.status == 1
    assert re.search(r"error: The loss is not finite in epoch 1, from step \d+ on\.", outcome.err)
    assert "No checkpoint was written.\nTry a smaller --model.learning_rate" in outcome.err
    assert not [*(tmp_path / "lightning_logs" / "wild").glob("checkpoints/*")]
    assert {path.name: path.read_bytes() for path in checkpoints.iterdir()} == before


def test_a_full_disk_leaves_the_checkpoint_that_was_there(script, run_folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in (run_folder / "checkpoints").iterdir()}

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    outcome = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 4)
    assert outcome.status == 1
    config = "lightning_logs/version_0/config.yaml"
    assert outcome.err.startswith(
        f"error: {config}: No space left on device: free some space\nResume it: python3 train.py --ckpt_path"
    )
    assert {path.name: path.read_bytes() for path in (run_folder / "checkpoints").iterdir()} == before


def test_a_disk_that_is_full_after_the_first_best_resumes_from_it(script, monkeypatch):
    folder, sync = Path("lightning_logs/version_0/checkpoints"), os.fsync

    def fails_after_best(descriptor):
        if (folder / "best.ckpt").exists():
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fails_after_best)
        outcome = script("train.py", *DIGITS, "--trainer.max_epochs", 2)
    assert outcome.status == 1
    error, advice = outcome.err.splitlines()
    assert error == f"error: {folder / 'last.ckpt'}: Disk quota exceeded: free some space: your quota is used up"
    python, *command = shlex.split(advice.removeprefix("Resume it: "))
    assert command == ["train.py", "--ckpt_path", str(folder / "best.ckpt")]
    assert script(*command, "--trainer.max_epochs", 2).status == 0
    assert torch.load(folder / "last.ckpt", weights_only=True)["epoch"] == 1


def test_a_log_that_cannot_be_written_is_named(script, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tensorboard.summary.writer.event_file_writer.EventFileWriter.flush", full)
    own = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "csv"]
    outcome = script("train.py", *DIGITS, "--trainer.max_epochs", 1, *own)
    assert "error: a log in lightning_logs or csv: No space left on device: free some space\n" in outcome.err


def test_a_checkpoint_gets_the_folders_of_its_name(tmp_path):
    path = tmp_path / "mine" / "epoch=0-val" / "elbo=-1.50.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 0}, str(path))
    assert torch.load(path, weights_only=True) == {"epoch": 0}
