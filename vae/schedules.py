"""What changes in the course of a training: pure functions of how much of it is done, and whether that is known."""

from collections.abc import Callable
from math import cos, inf, pi
from typing import Literal

from pytorch_lightning.utilities.exceptions import MisconfigurationException


def cosine(progress: float) -> float:
    """From 1 to 0 along half a cosine wave; 0 from then on."""
    return 0.5 * (1 + cos(pi * min(1.0, progress)))


def warm_up(epochs: float, warmup_epochs: float) -> float:
    """From 0 to 1 in a line over the first epochs; 1 from then on."""
    return min(1.0, epochs / warmup_epochs)


LRSchedule = Literal["constant", "cosine"]
# Of the learning rate: its factor, from the share of the training that is done.
LR_SCHEDULES: dict[str, Callable[[float], float] | None] = {"constant": None, "cosine": cosine}


def check_ends(
    lr_schedule: str, warmup_epochs: float, max_epochs: int, max_steps: int, steps_per_epoch: Callable[[], float]
) -> None:
    """See that the ends exist that schedule and warm-up are counted from.

    Args:
        max_epochs, max_steps: the Trainer's limits; -1: none.
        steps_per_epoch: gives the steps of an epoch, or infinity; asked only where something depends on it.

    Raises:
        MisconfigurationException: the training has no end, or the epoch no known length.
    """
    scheduled = LR_SCHEDULES[lr_schedule] is not None
    if scheduled and max_epochs == max_steps == -1:
        raise MisconfigurationException(
            f"lr_schedule {lr_schedule}: ends with the training, which has no end here; "
            "set --trainer.max_epochs or --trainer.max_steps"
        )
    depends = {"beta_warmup_epochs": warmup_epochs > 0, f"lr_schedule {lr_schedule}": scheduled and max_epochs > 0}
    for name in (name for name, by_epochs in depends.items() if by_epochs):
        if steps_per_epoch() == inf:
            advice = "" if name == "beta_warmup_epochs" else ", or end the training by max_steps with max_epochs -1"
            raise MisconfigurationException(
                f"{name}: needs the steps of an epoch, which a loader without a length does not know; "
                f"give its data set a __len__{advice}"
            )
