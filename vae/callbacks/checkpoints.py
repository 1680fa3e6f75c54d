"""best.ckpt and last.ckpt: which epochs they hold, and how they reach the disk."""

from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from vae import runs


class BestCheckpoint(ModelCheckpoint):
    """`best.ckpt`: the epoch with the highest val/elbo."""

    state_key = "best"  # Lightning would make it of all settings, at each step

    def __init__(self):
        super().__init__(
            filename="best",
            monitor="val/elbo",
            mode="max",
            save_on_train_epoch_end=True,  # when the epoch's log is whole
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def on_train_epoch_end(self, trainer: Trainer, lit: LightningModule) -> None:
        if self.monitor in trainer.callback_metrics:  # there is no validation with val_size 0
            super().on_train_epoch_end(trainer, lit)

    def load_state_dict(self, state: dict) -> None:
        """Go on with the best so far, also where the run's folder has moved."""
        here = f"{self.dirpath}/best.ckpt"
        paths = {
            "best_model_path": here,
            "kth_best_model_path": here,
            "best_k_models": {here: state["best_model_score"]},
        }
        super().load_state_dict(state | {"dirpath": self.dirpath} | (paths if state["best_model_path"] else {}))


class LastCheckpoint(ModelCheckpoint):
    """`last.ckpt`: the last epoch. `save_last` would keep the best one under that name."""

    state_key = "last"

    def __init__(self):
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints to a temporary name, syncs and renames: what is there is always whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any | None = None) -> None:
        content = BytesIO()
        torch.save(checkpoint, content)
        runs.write_atomically(Path(path), content.getbuffer())


def best_elbo(trainer: Trainer) -> float | None:
    """The highest validation ELBO of the run, nats per image; None where there was no validation."""
    scores = [callback.best_model_score for callback in trainer.callbacks if isinstance(callback, BestCheckpoint)]
    return scores[0].item() if scores and scores[0] is not None else None
