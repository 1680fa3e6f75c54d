"""Checkpoints: which epochs they are of, and that a failure leaves those that were there."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import DIGITS, fit
from pytorch_lightning import Callback

from datamodules import MNIST, Digits
from vae import runs
from vae.callbacks import BestCheckpoint, RunLogger, TensorBoardImages, Throughput


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
    assert outcome.err.startswith(
        "error: No space left on device: free some space\nResume it: python3 train.py --ckpt_path"
    )
    assert {path.name: path.read_bytes() for path in (run_folder / "checkpoints").iterdir()} == before
