"""best.ckpt and last.ckpt: which epochs they hold, and how they reach the disk."""

from collections.abc import Mapping
from io import BytesIO
from math import inf
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from vae import runs
from vae.lit_vae import LitVAE

MAX_COUNT = 2**53  # what is larger, no training counts


class BestCheckpoint(ModelCheckpoint):
    """`best.ckpt`: the weights with the highest val/elbo of all validations, those within an epoch too."""

    state_key = "best"  # Lightning would make it of all settings, at each step

    def __init__(self):
        super().__init__(
            filename="best",
            monitor="val/elbo",
            mode="max",
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def _should_save_on_train_epoch_end(self, trainer: Trainer) -> bool:
        """Whether to save when the epoch's log is whole, so that the run can be resumed; else after the validation."""
        return trainer.lightning_module.is_whole_epoch

    def on_train_epoch_end(self, trainer: Trainer, lit: LitVAE) -> None:
        if lit.is_validated:
            super().on_train_epoch_end(trainer, lit)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the score of the best.ckpt in the run's folder, which another checkpoint need not know."""
        path = Path(self.dirpath or "", "best.ckpt")
        score = runs.read_best_score(path) if path.is_file() else None
        if score is not None:
            self.best_model_path = self.kth_best_model_path = str(path)
            self.best_model_score = self.current_score = self.kth_value = torch.tensor(score)
            self.best_k_models = {self.best_model_path: self.best_model_score}


class LastCheckpoint(ModelCheckpoint):
    """`last.ckpt`: the last whole epoch. `save_last` would keep the best one under that name.

    Where the loader has no length, and training ends within the first epoch, it is where training ended.
    """

    state_key = "last"

    def __init__(self):
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)

    def on_train_epoch_end(self, trainer: Trainer, lit: LitVAE) -> None:
        has_no_end = trainer.current_epoch == 0 and lit.steps_per_epoch == inf
        if lit.is_whole_epoch or has_no_end:  # `max_steps` and `max_time` end training within one
            super().on_train_epoch_end(trainer, lit)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore nothing: its one path is that of this run's folder, which may have moved."""


class ResumeAtEpochStart(Callback):
    """Resumes a whole epoch's checkpoint at the start of the next epoch, also with `max_steps`.

    With `max_steps` the Trainer would resume within an epoch.
    """

    def on_save_checkpoint(self, trainer: Trainer, lit: LitVAE, checkpoint: dict[str, Any]) -> None:
        epoch = trainer.fit_loop.epoch_progress.current
        checkpoint["whole_epoch"] = lit.is_whole_epoch and epoch.processed == epoch.ready

    def on_train_start(self, trainer: Trainer, lit: LitVAE) -> None:
        trainer.fit_loop.epoch_loop.restarting = False


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints to a temporary name, syncs and renames: what is there is always whole.

    What is restored in place of an untrusted file's contents is in `restored`, as `built_state` makes it.
    """

    restored: dict[str, Any] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any | None = None) -> None:
        content = BytesIO()
        torch.save(checkpoint, content)
        folder = Path(path).parent
        if folder.name != "checkpoints":  # of a `dirpath`, or a name with {val/elbo}; a run's may have vanished
            folder.mkdir(parents=True, exist_ok=True)
        runs.write_atomically(Path(path), content.getbuffer())

    def load_checkpoint(self, path: str, *args: Any, **options: Any) -> dict[str, Any]:
        restored, self.restored = self.restored, None
        return restored or super().load_checkpoint(path, *args, **options)


def built_state(checkpoint: dict[str, Any], trainer: Trainer, lit: LitVAE) -> dict[str, Any]:
    """What the Trainer restores of an untrusted checkpoint of a whole epoch: its own fresh state, with those numbers.

    Raises:
        Exception: of any type, if they are none.
    """
    fit_loop, epochs, steps = trainer.fit_loop.state_dict(), checkpoint["epoch"] + 1, checkpoint["global_step"]
    blocks = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"]
    for name, count in (
        ("epoch_progress", epochs),
        ("epoch_loop.batch_progress", blocks),
        ("epoch_loop.manual_optimization.optim_step_progress", steps),
    ):
        for counts in (fit_loop[name]["total"], fit_loop[name]["current"]):
            counts.update(dict.fromkeys(counts, as_count(count)))
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = blocks
    built = {
        "pytorch-lightning_version": pl.__version__,
        "state_dict": {name: checkpoint["state_dict"][name] for name in lit.state_dict()},
        "optimizer_states": runs.checked_optimizer_states(checkpoint["optimizer_states"], lit),
        "lr_schedulers": [],  # the rate is a function of the progress
        "loops": {"fit_loop": fit_loop},
        "callbacks": {},
        "log": {name: as_count(size) for name, size in checkpoint.get("log", {}).items()},
    }
    for callback in trainer.callbacks:
        if state := checkpoint["callbacks"].get(callback.state_key):
            fresh = callback.state_dict()
            if isinstance(callback, ModelCheckpoint):  # whose paths may be anyone's
                state = fresh | {"best_model_score": state["best_model_score"]}
            built["callbacks"][callback.state_key] = with_numbers(fresh, state)
    precision, scaler = type(trainer.precision_plugin).__qualname__, trainer.precision_plugin.state_dict()
    if scaler and precision in checkpoint:
        built[precision] = with_numbers(scaler, checkpoint[precision])
    others = {name: value for name, value in checkpoint.items() if name != "native_amp_scaling_state"}
    return others | built


def as_count(value: Any) -> int:
    """A whole number of a file.

    Raises:
        ValueError: it is none.
    """
    if type(value) is not int or not 0 <= value < MAX_COUNT:
        raise ValueError("expected a count in the state of training")
    return value


def with_numbers(fresh: Any, found: Any) -> Any:
    """A state of a file; where a fresh one has a number, or none yet, it has one too.

    Raises:
        Exception: of any type, if it has not.
    """
    if isinstance(fresh, Mapping):
        return {**found, **{name: with_numbers(value, found[name]) for name, value in fresh.items()}}
    is_number = isinstance(found, int | float) or (isinstance(found, torch.Tensor) and found.ndim == 0)
    if (fresh is None or isinstance(fresh, int | float)) and not (found is None or is_number):
        raise ValueError("expected a number in the state of training")
    return found


def best_epoch(trainer: Trainer) -> int | None:
    """The epoch that best.ckpt is of, counted from 1; None if there is no such file."""
    path = runs.best_checkpoint(Path(trainer.log_dir or ""))
    return runs.read_checkpoint(path)["epoch"] + 1 if path.exists() else None


def best_elbo(trainer: Trainer) -> float | None:
    """The highest validation ELBO of the run, nats per image; None where there was no validation."""
    scores = [callback.best_model_score for callback in trainer.callbacks if isinstance(callback, BestCheckpoint)]
    return scores[0].item() if scores and scores[0] is not None else None
