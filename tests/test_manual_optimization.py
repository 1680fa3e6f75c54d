"""Which callbacks of Lightning have no effect where a model takes its optimiser steps itself."""

import pytest
import pytorch_lightning.callbacks
from helpers import DIGITS, QUIET
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import BatchSizeFinder, LearningRateFinder, SpikeDetection, StochasticWeightAveraging
from pytorch_lightning.tuner import Tuner
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules import Digits
from vae import LitVAE
from vae.manual_optimization import check_callbacks


class OwnAveraging(StochasticWeightAveraging):
    pass


class OwnAccumulation(Callback):
    def on_train_start(self, trainer, lit):
        trainer.accumulate_grad_batches = 2


def is_refused(kind):
    try:
        check_callbacks([kind.__new__(kind)])
    except MisconfigurationException as error:
        assert str(error).startswith(f"{kind.__name__}: sets ")
        return True
    return False


def test_the_rule_finds_what_needs_automatic_optimization():
    kinds = [getattr(pytorch_lightning.callbacks, name) for name in pytorch_lightning.callbacks.__all__]
    refused = {kind.__name__ for kind in kinds if is_refused(kind)}
    assert refused == {"GradientAccumulationScheduler", "LearningRateFinder", "StochasticWeightAveraging"}
    assert is_refused(OwnAveraging)
    assert is_refused(OwnAccumulation)


@pytest.mark.parametrize("callback", [StochasticWeightAveraging(0.1), LearningRateFinder(), OwnAccumulation()])
def test_they_are_refused_before_the_first_step(callback):
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, callbacks=[callback], **QUIET)
    with pytest.raises(MisconfigurationException, match="manual optimization"):
        trainer.fit(LitVAE(image_shape=(1, 8, 8), hidden_dims=8), Digits())
    assert trainer.global_step == 0


def test_the_batch_size_can_be_tuned_from_python():
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, **QUIET)
    lit, data = LitVAE(image_shape=(1, 8, 8), hidden_dims=8), Digits(batch_size=1)
    assert Tuner(trainer).scale_batch_size(lit, datamodule=data, max_trials=2) == data.hparams.batch_size == 4
    assert [type(each) for each in trainer.callbacks if isinstance(each, BatchSizeFinder)] == []


def test_a_monitor_logs_after_each_block(script):
    options = ["--trainer.max_epochs", 2, "--trainer.callbacks", "LearningRateMonitor", "--run_name", "mine"]
    assert script("train.py", *DIGITS, *options).status == 0
    events = EventAccumulator("lightning_logs/mine").Reload()
    assert {event.step for event in events.Scalars("workings/lr-Adam")} == {0, 1, 2, 3}


def test_a_spike_of_the_loss_is_seen():
    class Poison(Callback):
        def on_train_batch_start(self, trainer, lit, batch, batch_idx):
            if trainer.global_step == 20:
                lit.vae.likelihood.logits[0].bias.data += 100

    callbacks = [Poison(), SpikeDetection(atol=10.0)]
    trainer = Trainer(max_epochs=3, logger=False, enable_checkpointing=False, callbacks=callbacks, **QUIET)
    with pytest.raises(RuntimeError, match="[Ss]pike"):
        trainer.fit(LitVAE(image_shape=(1, 8, 8), hidden_dims=8), Digits(steps_per_block=2))
    assert trainer.global_step == 22
