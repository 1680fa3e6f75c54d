"""Callbacks and plugins of the Trainer: checkpoints, an exact resume, TensorBoard, shutdown, progress."""

from vae.callbacks.checkpoints import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint, best_elbo, best_epoch
from vae.callbacks.progress import Throughput, progress
from vae.callbacks.restoring import ExactResume, built_state
from vae.callbacks.shutdown import GracefulShutdown
from vae.callbacks.tensorboard import RunLogger, TensorBoardImages, keeps_frame
