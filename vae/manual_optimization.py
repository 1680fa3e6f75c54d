"""What has no effect in a Trainer, or a wrong one, where a model takes its own optimiser steps, several a batch."""

from collections.abc import Callable, Mapping
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import (
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
    WeightAveraging,
)
from pytorch_lightning.utilities.exceptions import MisconfigurationException

REASON = "without effect: the model takes its optimiser steps itself (manual optimization); leave this callback out"
AUTOMATIC = (GradientAccumulationScheduler, LearningRateFinder, StochasticWeightAveraging)


def check_callbacks(trainer: Trainer, steps_per_epoch: Callable[[], float]) -> None:
    """See, before training, that no callback of Lightning needs automatic optimisation or counts batches as steps.

    `check_trainer` would find the first, but some of them act late in a training.

    Args:
        steps_per_epoch: gives the optimiser steps of an epoch; asked only where something depends on it.

    Raises:
        MisconfigurationException: one of them does.
    """
    for callback in trainer.callbacks:
        if isinstance(callback, AUTOMATIC):
            raise MisconfigurationException(f"{type(callback).__name__}: {REASON}")
        if isinstance(callback, WeightAveraging) and steps_per_epoch() != trainer.num_training_batches:
            raise MisconfigurationException(
                f"{type(callback).__name__}: averages after each batch of the Trainer, here a block of steps; "
                "set --data.steps_per_block 1"
            )


def check_trainer(trainer: Trainer) -> None:
    """See that nobody has set what the Trainer reads in automatic optimisation alone, and that there is one loader.

    Raises:
        MisconfigurationException: a callback has, or there are several, of which a step would take the first alone.
    """
    if isinstance(trainer.train_dataloader, Mapping | list | tuple):
        raise MisconfigurationException(
            f"expected one training loader, got a {type(trainer.train_dataloader).__name__}; "
            "join data sets with torch.utils.data.ConcatDataset"
        )
    changed = {
        "accumulate_grad_batches": trainer.accumulate_grad_batches != 1,
        "lr_scheduler_configs": trainer.lr_scheduler_configs != [],
    }
    if any(changed.values()):
        names = " and ".join(name for name in changed if changed[name])
        raise MisconfigurationException(f"a callback has set {names} of the Trainer, {REASON}")


def check_learning_rate(group: dict[str, Any], lr_schedule: str) -> None:
    """See that the learning rate of an optimiser's parameters is the one that the schedule has set.

    Raises:
        MisconfigurationException: a callback has set another, which the schedule would replace.
    """
    if group["lr"] != group.get("scheduled_lr", group["lr"]):  # of an older checkpoint it is not known
        raise MisconfigurationException(
            f"a callback has set the learning rate, without effect: lr_schedule {lr_schedule} sets it at each step; "
            "choose lr_schedule constant, or leave this callback out"
        )
