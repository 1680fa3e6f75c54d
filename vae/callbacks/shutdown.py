"""Ctrl-C and SIGTERM end a training cleanly."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from vae import runs


def handle_signal(signum: int, handler: Any) -> None:
    """Handle a signal, in the main thread: it gets them, and no other may say how."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signum, handler)


class GracefulShutdown(Callback):
    """Ctrl-C and SIGTERM end a training after the step at hand; a second one ends it at once.

    Raises:
        Interrupted: from the step's end; the message has the command that resumes the run.
    """

    def __init__(self):
        self.signum: int | None = None

    def on_train_start(self, trainer: Trainer, lit: LightningModule) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            handle_signal(signum, self.take)  # the Trainer puts back at its end what was there

    def take(self, signum: int, frame: Any) -> None:
        if self.signum is not None:
            os._exit(128 + signum)
        self.signum = signum

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        stop = self.signum is not None
        if trainer.world_size > 1:  # all processes stop after the same step, also where one alone has the signal
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            signum = signal.Signals(self.signum or signal.SIGTERM)
            message = f"{signum.name} stopped the run in epoch {trainer.current_epoch + 1}, step {trainer.global_step}."
            advice = f"\n{runs.how_to_resume(Path(trainer.log_dir))}" if trainer.log_dir else ""
            raise runs.Interrupted(f"{message}{advice}", signum)

    on_validation_batch_end = on_train_batch_end
