"""The progress of a run on the screen, and the training images per second."""

import sys
import time
from datetime import timedelta
from math import inf
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar, Timer, TQDMProgressBar

SECONDS_BETWEEN_LINES = 10


class TrainingProgress(ProgressBar):
    """How far a training is: values, and how long it still takes at its speed since it was started or resumed."""

    def on_train_start(self, trainer: Trainer, lit: LightningModule) -> None:
        super().on_train_start(trainer, lit)
        self.started = time.perf_counter(), lit.progress

    def time_left(self, trainer: Trainer, lit: LightningModule) -> str:
        """Hours, minutes and seconds; nothing at the end, or where the training has none."""
        start, before = self.started
        if not before < lit.progress < 1:
            return ""
        estimate = (1 - lit.progress) * (time.perf_counter() - start) / (lit.progress - before)
        limits = [each.time_remaining() for each in trainer.callbacks if isinstance(each, Timer)]
        left = min([estimate, *(limit for limit in limits if limit is not None)])
        return str(timedelta(seconds=round(max(0, left))))

    def get_metrics(self, trainer: Trainer, lit: LightningModule) -> dict[str, str]:
        metrics = super().get_metrics(trainer, lit)
        return {name: f"{value:.2f}" for name, value in metrics.items() if name != "v_num"}

    @staticmethod
    def describe_epoch(trainer: Trainer) -> str:
        """Its number, counted from 1, and how many there will be at most."""
        return f"Epoch {trainer.current_epoch + 1}" + (f" of {trainer.max_epochs}" if trainer.max_epochs > 0 else "")


class TerminalProgress(TrainingProgress, TQDMProgressBar):
    """Lightning's progress bar; it counts blocks of training steps.

    Not the one by Rich: its thread, which draws while the model computes, costs a tenth of the training.
    """

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        bar, blocks = self.train_progress_bar, self.total_train_batches
        bar.reset(blocks if blocks < inf else None)
        bar.initial, bar.unit = 0, " blocks"
        bar.set_description(self.describe_epoch(trainer))

    def get_metrics(self, trainer: Trainer, lit: LightningModule) -> dict[str, str]:
        left = self.time_left(trainer, lit)
        return super().get_metrics(trainer, lit) | ({"left": left} if left else {})


class LogProgress(TrainingProgress):
    """For output that is no terminal: one line an epoch; of a long test one now and then, apart from its table."""

    is_enabled = True

    def disable(self) -> None:
        self.is_enabled = False

    def enable(self) -> None:
        self.is_enabled = True

    def on_train_epoch_end(self, trainer: Trainer, lit: LightningModule) -> None:
        steps = lit.validated_step - (trainer.global_step - lit.epoch_steps)  # of this epoch, before its validation
        values = self.get_metrics(trainer, lit)
        if steps <= 0:
            values.pop("val/elbo", None)
        elif not lit.is_validated:
            values["val/elbo"] += f" after {steps} of {lit.epoch_steps} steps"
        shown = [f"{name} {value}" for name, value in values.items()]
        shown.append(f"{trainer.callback_metrics['epoch_seconds']:.1f} s")
        shown.append(f"{trainer.callback_metrics['images_per_second']:,.0f} images/s")
        shown += [f"{left} left"] if (left := self.time_left(trainer, lit)) else []
        if self.is_enabled:  # the Trainer disables it on all processes but the first
            print(f"{self.describe_epoch(trainer)}: {', '.join(shown)}", flush=True)

    def on_test_start(self, trainer: Trainer, lit: LightningModule) -> None:
        self.start = time.perf_counter()

    def on_test_batch_end(
        self, trainer: Trainer, lit: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        tested, batches = batch_idx + 1, trainer.num_test_batches[0]
        is_due = tested < batches and time.perf_counter() - self.start >= SECONDS_BETWEEN_LINES
        if self.is_enabled and is_due:
            self.start = time.perf_counter()
            print(f"Tested {tested} of {batches} batches", file=sys.stderr, flush=True)


def progress(refresh_rate: int = 1) -> ProgressBar:
    """The progress bar on a terminal, lines elsewhere.

    Args:
        refresh_rate: the bar is drawn anew after so many batches.
    """
    return TerminalProgress(refresh_rate) if sys.stdout.isatty() else LogProgress()


class Throughput(Callback):
    """Logs the seconds of each epoch, the training images seen so far, and how many a second outside validation."""

    def __init__(self):
        self.images_seen: int | None = None

    def state_dict(self) -> dict[str, int | None]:
        return {"images_seen": self.images_seen}

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        self.images_seen = state["images_seen"]

    def on_train_start(self, trainer: Trainer, lit: LightningModule) -> None:
        if self.images_seen is None:  # a new run, or a checkpoint that does not have it
            self.images_seen = trainer.current_epoch * len(trainer.datamodule.splits["train"])

    def on_train_epoch_start(self, trainer: Trainer, lit: LightningModule) -> None:
        self.start, self.validation_seconds = time.perf_counter(), 0.0

    def on_validation_start(self, trainer: Trainer, lit: LightningModule) -> None:
        self.validation_start = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, lit: LightningModule) -> None:
        self.validation_seconds += time.perf_counter() - self.validation_start

    def on_train_epoch_end(self, trainer: Trainer, lit: LightningModule) -> None:
        seconds = time.perf_counter() - self.start
        images = int(
            trainer.strategy.reduce(torch.tensor(lit.train_table.num_images, device=lit.device), reduce_op="sum")
        )
        self.images_seen = (self.images_seen or 0) + images
        rate = images / (seconds - self.validation_seconds)
        lit.log_epoch({"epoch_seconds": seconds, "images_per_second": rate, "images_seen": float(self.images_seen)})
