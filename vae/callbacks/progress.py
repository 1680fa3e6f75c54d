"""The progress bar, and the training images per second."""

import time

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar, without the run's number.

    Not the one by Rich: its thread, which draws while the model computes, costs a tenth of the training.
    """

    def get_metrics(self, trainer: Trainer, lit: LightningModule) -> dict:
        metrics = super().get_metrics(trainer, lit)
        return {name: value for name, value in metrics.items() if name != "v_num"}


class Throughput(Callback):
    """Logs the seconds of each epoch, the training images seen so far, and how many a second outside validation."""

    def on_train_epoch_start(self, trainer: Trainer, lit: LightningModule) -> None:
        self.start, self.validation_seconds = time.perf_counter(), 0.0

    def on_validation_start(self, trainer: Trainer, lit: LightningModule) -> None:
        self.validation_start = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, lit: LightningModule) -> None:
        self.validation_seconds += time.perf_counter() - self.validation_start

    def on_train_epoch_end(self, trainer: Trainer, lit: LightningModule) -> None:
        seconds = time.perf_counter() - self.start
        images = int(
            trainer.strategy.reduce(torch.tensor(lit.train_bound.num_images, device=lit.device), reduce_op="sum")
        )
        rate = images / (seconds - self.validation_seconds)
        seen = images * (trainer.current_epoch + 1)
        lit.log_epoch({"epoch_seconds": seconds, "images_per_second": rate, "images_seen": float(seen)})
