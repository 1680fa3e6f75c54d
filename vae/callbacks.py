"""What hangs on the Trainer beside the model: the run's logger, and what it tells TensorBoard."""

import time
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from torchvision.transforms.functional import pil_to_tensor

from vae import runs
from vae.figures import reconstruction, samples

IMAGES_PER_TAG = 10  # as many as TensorBoard keeps; among more it would choose at random


class RunLogger(TensorBoardLogger):
    """TensorBoard in the run's own folder, which is taken only when there is something to write.

    A start that fails, on bad data or a wrong option, then leaves no folder behind.

    Args:
        run_name: the folder's name, by default version_N.
        resumed: the folder of the run that goes on, if one does.
    """

    def __init__(self, run_name: str | None = None, resumed: Path | None = None):
        folder, version = (resumed.parent, resumed.name) if resumed else (runs.ROOT, None)
        super().__init__(folder, name="", version=version, default_hp_metric=False)
        self.run_name = run_name

    @property
    def version(self) -> str:
        if self._version is None:
            self._version = runs.new_run(self.run_name).name
        return self._version


class BestCheckpoint(ModelCheckpoint):
    """`best.ckpt`: the epoch with the highest val/elbo."""

    def __init__(self):
        super().__init__(
            filename="best",
            monitor="val/elbo",
            mode="max",
            save_on_train_epoch_end=False,  # after validation, of which there is none with val_size 0
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

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

    def __init__(self):
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)


class ProgressBar(RichProgressBar):
    """Lightning's progress bar with the validation ELBO; without the run's number and the speed, it fits one line."""

    def configure_columns(self, trainer: Trainer) -> list:
        return super().configure_columns(trainer)[:-1]

    def get_metrics(self, trainer: Trainer, lit: LightningModule) -> dict:
        metrics = super().get_metrics(trainer, lit)
        return {name: value for name, value in metrics.items() if name != "v_num"}


class EpochTime(Callback):
    """Logs the seconds that each epoch took, validation included."""

    def on_train_epoch_start(self, trainer: Trainer, lit: LightningModule) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, lit: LightningModule) -> None:
        lit.log("epoch_seconds", time.perf_counter() - self.start)


class Pictures(Callback):
    """Reconstructions of validation pictures, and samples, into TensorBoard: some ten times in a run."""

    def on_train_epoch_end(self, trainer: Trainer, lit: LightningModule) -> None:
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs
        if epoch % max(1, -(-epochs // IMAGES_PER_TAG)) and epoch != epochs:
            return
        data = trainer.datamodule
        images = data.pictures("val" if data.splits["val"] else "train", 40).to(lit.device)
        for figure in (reconstruction, samples):
            image = pil_to_tensor(figure(lit.vae, images))
            trainer.logger.experiment.add_image(figure.__name__, image, trainer.global_step)


class HyperParameters(Callback):
    """The hyper-parameters, with the best validation ELBO, into TensorBoard's HParams tab, at the end."""

    def on_train_end(self, trainer: Trainer, lit: LightningModule) -> None:
        best = best_elbo(trainer)
        if best is not None:
            hparams = {name: value for name, value in lit.hparams.items() if name != "palette"}
            hparams |= {f"data.{name}": value for name, value in trainer.datamodule.hparams.items()}
            trainer.logger.log_hyperparams(hparams, {"best_val_elbo": best})


def best_elbo(trainer: Trainer) -> float | None:
    """The highest validation ELBO of the run, nats per picture; None where there was no validation."""
    scores = [callback.best_model_score for callback in trainer.callbacks if isinstance(callback, BestCheckpoint)]
    return scores[0].item() if scores and scores[0] is not None else None
