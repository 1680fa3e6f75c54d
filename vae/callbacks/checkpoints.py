"""best.ckpt and last.ckpt: which epochs they hold, and how they reach the disk."""

from io import BytesIO
from math import inf
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from vae import runs
from vae.lit_vae import LitVAE


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
        if not path.is_file():
            return
        with runs.as_untrusted(path):
            score = runs.best_score(runs.read_checkpoint(path))
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


def best_epoch(trainer: Trainer) -> int | None:
    """The epoch that best.ckpt is of, counted from 1; None if there is no such file."""
    path = runs.best_checkpoint(Path(trainer.log_dir or ""))
    return runs.read_checkpoint(path)["epoch"] + 1 if path.exists() else None


def best_elbo(trainer: Trainer) -> float | None:
    """The highest validation ELBO of the run, nats per image; None where there was no validation."""
    scores = [callback.best_model_score for callback in trainer.callbacks if isinstance(callback, BestCheckpoint)]
    return scores[0].item() if scores and scores[0] is not None else None
