"""The base of a LightningModule that takes its optimiser steps itself, several in each batch of the Trainer.

The Trainer counts batches. What is here counts steps: how far training is, and where the logs have their values.
"""

import warnings
from collections.abc import Mapping
from math import inf
from typing import Any

from pytorch_lightning import LightningModule

from vae.loaders import count_steps
from vae.manual_optimization import check_callbacks, check_trainer


class BlockTraining(LightningModule):
    """Training in blocks of steps; a subclass adds one to `epoch_steps` after each.

    Attributes:
        epoch_steps: optimiser steps of the current epoch so far.
        validated_step: the optimiser step after which the last validation was.
    """

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.epoch_steps = 0
        self.validated_step = 0
        self.unwritten: dict[str, float] = {}  # what the run's logs get of the current step

    def setup(self, stage: str) -> None:
        if stage == "fit":
            check_callbacks(self.trainer, lambda: self.steps_per_epoch)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "loops" in checkpoint:  # of a version that let the Trainer take the steps, which counted elsewhere
            steps = checkpoint["loops"]["fit_loop"]["epoch_loop.manual_optimization.optim_step_progress"]["total"]
            steps |= dict.fromkeys(steps, checkpoint["global_step"])

    @property
    def steps_per_epoch(self) -> float:
        """The optimiser steps of an epoch; infinity for a loader without a length."""
        self.trainer.fit_loop.setup_data()
        return count_steps(self.trainer.train_dataloader, self.trainer.num_training_batches)

    @property
    def is_whole_epoch(self) -> bool:
        """Whether the current epoch has had all its steps, of a loader without a length all that it gave."""
        steps = self.steps_per_epoch
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        return progress.is_last_batch if steps == inf else self.epoch_steps == steps

    @property
    def epochs_done(self) -> float:
        """The epochs trained so far, of the current one the share of its steps that was taken."""
        return self.current_epoch + self.epoch_steps / self.steps_per_epoch

    @property
    def progress(self) -> float:
        """The share of the training that is done, by the Trainer's nearest limit; 0 if it has none.

        It is counted from the limits as they are now. So a resumed run that ends later, or that has other steps in an
        epoch, follows its new end.
        """
        limits = ((self.epochs_done, self.trainer.max_epochs), (self.global_step, self.trainer.max_steps))
        return max((done / limit for done, limit in limits if limit > 0), default=0.0)

    @property
    def is_validated(self) -> bool:
        """Whether the logged values of validation are those of the current weights."""
        return self.validated_step == self.global_step

    def on_train_epoch_start(self) -> None:
        self.epoch_steps = 0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        check_trainer(self.trainer)
        self.write_log()  # of a validation within the epoch

    def log_epoch(self, values: Mapping[str, float]) -> None:
        """Log values of an epoch: in training into the run's logs by `write_log`, all those of a step together."""
        fitting = self.trainer.state.fn == "fit"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You called `self.log")  # to no logger: Trainer.test returns only that
            for name, value in values.items():
                self.log(name, value, logger=not fitting, prog_bar=name == "val/elbo")
        if fitting and not self.trainer.sanity_checking:
            self.unwritten |= values

    def write_log(self) -> None:
        """Write what was logged since the last optimiser step into the run's logs, at that step.

        The Trainer would do it after it has written the checkpoint, and at its own count, which is that of batches.
        """
        if self.unwritten:
            for logger in self.loggers:
                logger.log_metrics({**self.unwritten, "epoch": self.current_epoch}, max(0, self.global_step - 1))
            self.unwritten = {}
