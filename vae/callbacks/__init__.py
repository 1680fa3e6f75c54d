"""Callbacks and plugins of the Trainer: checkpoints, TensorBoard, shutdown, progress."""

from vae.callbacks.checkpoints import (
    AtomicCheckpointIO,
    BestCheckpoint,
    LastCheckpoint,
    ResumeAtEpochStart,
    best_elbo,
    best_epoch,
    built_state,
)
from vae.callbacks.progress import Throughput, progress
from vae.callbacks.shutdown import GracefulShutdown
from vae.callbacks.tensorboard import RunLogger, TensorBoardImages, TruncateLogOnResume, keeps_frame
