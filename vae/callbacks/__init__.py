"""Callbacks and plugins of the Trainer: checkpoints, TensorBoard, shutdown, progress."""

from vae.callbacks.checkpoints import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint, best_elbo
from vae.callbacks.progress import ProgressBar, Throughput
from vae.callbacks.shutdown import GracefulShutdown
from vae.callbacks.tensorboard import RunLogger, TensorBoardImages, TruncateLogOnResume, keeps_frame

__all__ = [
    "AtomicCheckpointIO",
    "BestCheckpoint",
    "GracefulShutdown",
    "LastCheckpoint",
    "ProgressBar",
    "RunLogger",
    "TensorBoardImages",
    "Throughput",
    "TruncateLogOnResume",
    "best_elbo",
    "keeps_frame",
]
