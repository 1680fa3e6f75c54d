"""best.ckpt and last.ckpt: which epochs they hold, and how they reach the disk."""

from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Callback, Trainer
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
        score = runs.read_best_score(path) if path.is_file() else None
        if score is not None:
            self.best_model_path = self.kth_best_model_path = str(path)
            self.best_model_score = self.current_score = self.kth_value = torch.tensor(score)
            self.best_k_models = {self.best_model_path: self.best_model_score}


class LastCheckpoint(ModelCheckpoint):
    """`last.ckpt`: the last whole epoch. `save_last` would keep the best one under that name."""

    state_key = "last"

    def __init__(self):
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)

    def on_train_epoch_end(self, trainer: Trainer, lit: LitVAE) -> None:
        if lit.is_whole_epoch:  # `max_steps` and `max_time` end training within one
            super().on_train_epoch_end(trainer, lit)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore nothing: its one path is that of this run's folder, which may have moved."""


class ResumeAtEpochStart(Callback):
    """Resumes a whole epoch's checkpoint at the start of the next epoch, also with `max_steps`.

    With `max_steps` the Trainer would resume within the checkpoint's epoch and end it a second time. So it learns that
    option only when it has restored its state.
    """

    def on_save_checkpoint(self, trainer: Trainer, lit: LitVAE, checkpoint: dict[str, Any]) -> None:
        epoch = trainer.fit_loop.epoch_progress.current
        checkpoint["whole_epoch"] = lit.is_whole_epoch and epoch.processed == epoch.ready

    def on_fit_start(self, trainer: Trainer, lit: LitVAE) -> None:
        self.max_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1

    def on_train_start(self, trainer: Trainer, lit: LitVAE) -> None:
        trainer.fit_loop.epoch_loop.max_steps = self.max_steps

    on_fit_end = on_train_start  # of a run that was at its end already


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints to a temporary name, syncs and renames: what is there is always whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any | None = None) -> None:
        content = BytesIO()
        torch.save(checkpoint, content)
        folder = Path(path).parent
        if folder.name != "checkpoints":  # of a `dirpath`, or a name with {val/elbo}; a run's may have vanished
            folder.mkdir(parents=True, exist_ok=True)
        runs.write_atomically(Path(path), content.getbuffer())


def fresh_state(trainer: Trainer) -> dict[str, Any]:
    """The `loops` and `callbacks` that a checkpoint would hold before training."""
    loops = ("fit_loop", "validate_loop", "test_loop", "predict_loop")
    return {
        "loops": {name: getattr(trainer, name).state_dict() for name in loops},
        "callbacks": {callback.state_key: callback.state_dict() for callback in trainer.callbacks},
    }


def best_epoch(trainer: Trainer) -> int | None:
    """The epoch that best.ckpt is of, counted from 1; None if there is no such file."""
    path = runs.best_checkpoint(Path(trainer.log_dir or ""))
    return runs.read_checkpoint(path)["epoch"] + 1 if path.exists() else None


def best_elbo(trainer: Trainer) -> float | None:
    """The highest validation ELBO of the run, nats per image; None where there was no validation."""
    scores = [callback.best_model_score for callback in trainer.callbacks if isinstance(callback, BestCheckpoint)]
    return scores[0].item() if scores and scores[0] is not None else None
