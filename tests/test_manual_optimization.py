"""Which callbacks have no effect, or a wrong one, where a model takes its optimiser steps itself."""

from contextlib import nullcontext

import pytest
import torch
from helpers import DIGITS, QUIET
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import (
    BatchSizeFinder,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    SpikeDetection,
    StochasticWeightAveraging,
)
from pytorch_lightning.tuner import Tuner
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.types import LRSchedulerConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules import Digits
from vae import LitVAE


class OwnAveraging(StochasticWeightAveraging):
    pass


class Own(Callback):
    def __init__(self, change):
        self.change = change

    def on_train_start(self, trainer, lit):
        self.change(trainer)


def accumulate(trainer):
    trainer.accumulate_grad_batches = 2


def add_scheduler(trainer):
    schedule = torch.optim.lr_scheduler.StepLR(trainer.optimizers[0], 1)
    trainer.lr_scheduler_configs.append(LRSchedulerConfig(schedule))


@pytest.mark.parametrize(
    "callback",
    [
        GradientAccumulationScheduler({0: 2}),
        LearningRateFinder(),
        OwnAveraging(0.1),
        Own(accumulate),
        Own(lambda trainer: setattr(trainer, "accumulate_grad_batches", 2)),
        Own(add_scheduler),
    ],
)
def test_what_needs_automatic_optimization_is_refused_before_the_first_step(callback):
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, callbacks=[callback], **QUIET)
    with pytest.raises(MisconfigurationException, match="without effect.*manual optimization"):
        trainer.fit(LitVAE(image_shape=(1, 8, 8), hidden_dims=8), Digits())
    assert trainer.global_step == 0


def test_weights_are_averaged_after_each_step_or_not_at_all():
    """In blocks of two steps an average that takes every second one would keep the initial weights."""
    for steps_per_block, steps in ((1, 12), (2, 0)):
        average = EMAWeightAveraging(decay=0.5, update_every_n_steps=2)
        trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, callbacks=[average], **QUIET)
        refused = pytest.raises(MisconfigurationException, match=r"EMAWeightAveraging: .*--data\.steps_per_block 1")
        with nullcontext() if steps else refused:
            trainer.fit(LitVAE(image_shape=(1, 8, 8), hidden_dims=8), Digits(steps_per_block=steps_per_block))
        assert trainer.global_step == steps


@pytest.mark.parametrize("hook", ["on_train_start", "on_train_epoch_start", "on_train_batch_start"])
@pytest.mark.parametrize(("lr_schedule", "steps"), [("constant", 24), ("cosine", None)])
def test_a_schedule_and_a_callback_do_not_both_set_the_learning_rate(hook, lr_schedule, steps):
    change = Callback()
    setattr(change, hook, lambda trainer, *_: trainer.optimizers[0].param_groups[0].update(lr=0.5e-3))
    trainer = Trainer(max_epochs=2, logger=False, enable_checkpointing=False, callbacks=[change], **QUIET)
    refused = pytest.raises(MisconfigurationException, match="has set the learning rate, without effect: lr_schedule c")
    with nullcontext() if steps else refused:
        trainer.fit(LitVAE(image_shape=(1, 8, 8), hidden_dims=8, lr_schedule=lr_schedule), Digits())
    assert trainer.global_step == (steps or 0)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.5e-3


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
