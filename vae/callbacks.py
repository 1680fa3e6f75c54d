"""What hangs on the Trainer beside the model: the run's logger, and what it tells TensorBoard."""

import os
import signal
import time
from collections.abc import Mapping
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.nn.functional import pad
from torchvision.io import encode_png
from torchvision.transforms.functional import resize

from vae import runs
from vae.figures import codes, frame, reconstruction_grid, sample_grid

MOST_CODES = 2_000  # of which TensorBoard is told; its projector moves no more of them smoothly
TABULATED = ("data.dataset", "hidden_dims", "latent_dim", "likelihood", "objective")
MOST_PIXELS = 64  # of a picture's side in the projector


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
        self.last_step: int | None = None

    @property
    def version(self) -> str:
        if rank_zero_only.rank:
            return ""  # the Trainer tells every process the first one's folder
        if self._version is None:
            self._version = runs.new_run(self.run_name).name
        return self._version

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Enter them; the epoch, which comes with all of them, only once a step."""
        again, self.last_step = step == self.last_step, step
        super().log_metrics({name: value for name, value in metrics.items() if not (again and name == "epoch")}, step)

    @rank_zero_only
    def add_png(self, name: str, png: bytes, step: int) -> None:
        """Enter a picture; SummaryWriter.add_image takes three times as long, since it compresses more."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # TensorBoard is imported when there is a run to tell

        width, height = (int.from_bytes(png[place : place + 4], "big") for place in (16, 20))  # of a PNG's header
        image = Summary.Image(height=height, width=width, encoded_image_string=png)
        self.experiment._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    @rank_zero_only
    def compare_by(self, hparams: Mapping[str, Any]) -> None:
        """Enter the run into the HParams tab, beside its best validation ELBO and what `test.py` finds."""
        from tensorboard.plugins.hparams import summary_v2 as hp
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        values = {
            name: value if isinstance(value, bool | float | int) else str(value) for name, value in hparams.items()
        }
        metrics = [
            hp.Metric("best_val_elbo", display_name="best validation ELBO"),
            hp.Metric("test/elbo", group="test", display_name="test ELBO"),
            hp.Metric("test/log_marginal", group="test", display_name="test log p(x)"),
        ]
        config = hp.hparams_config_pb([hp.HParam(name) for name in values], metrics)
        content = HParamsPluginData.FromString(config.value[0].metadata.plugin_data.content)
        for info in content.experiment.hparam_infos:
            info.differs = info.name in TABULATED  # TensorBoard's table has the first five that do
        config.value[0].metadata.plugin_data.content = content.SerializeToString()
        writer = self.experiment._get_file_writer()
        writer.add_summary(config)
        writer.add_summary(hp.hparams_pb(values, trial_id=self.version))


class ExactLog(Callback):
    """Keeps the log of a run that is killed and resumed that of one that never was.

    A checkpoint has the sizes that the event files had when it was written. A run that goes on from there cuts off what
    was told after it, and tells it again.
    """

    def __init__(self):
        self.sizes: dict[str, int] | None = None

    def on_save_checkpoint(self, trainer: Trainer, lit: LightningModule, checkpoint: dict[str, Any]) -> None:
        run = trainer.log_dir  # which all processes must ask for
        if run and trainer.is_global_zero:
            trainer.logger.experiment.flush()
            checkpoint["log"] = runs.log_sizes(Path(run))

    def on_load_checkpoint(self, trainer: Trainer, lit: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.sizes = checkpoint.get("log")

    def on_train_start(self, trainer: Trainer, lit: LightningModule) -> None:
        if self.sizes is not None and trainer.is_global_zero:
            runs.cut_log(Path(trainer.logger.log_dir), self.sizes)
        self.sizes = None

    on_fit_end = on_train_start  # of a run that was at its end already


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


class DurableCheckpoints(TorchCheckpointIO):
    """Writes checkpoints to a temporary name, syncs and renames: what is there is always whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any | None = None) -> None:
        content = BytesIO()
        torch.save(checkpoint, content)
        runs.write(Path(path), content.getbuffer())


class StopBySignal(Callback):
    """Ctrl-C and SIGTERM end a training after the step at hand; a second one ends it at once.

    Raises:
        Interrupted: from the step's end; the message has the command that goes on.
    """

    def __init__(self):
        self.signum: int | None = None

    def on_train_start(self, trainer: Trainer, lit: LightningModule) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self.take)  # the Trainer puts back at its end what was there

    def take(self, signum: int, frame: Any) -> None:
        if self.signum is not None:
            os._exit(128 + signum)
        self.signum = signum

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        stop = self.signum is not None
        if trainer.world_size > 1:  # all processes stop after the same step, also where one alone was told
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop:
            signum = signal.Signals(self.signum or signal.SIGTERM)
            message = f"{signum.name} stopped the run in epoch {trainer.current_epoch + 1}, step {trainer.global_step}."
            raise runs.Interrupted(f"{message}\n{runs.how_to_go_on(Path(trainer.log_dir))}", signum)

    on_validation_batch_end = on_train_batch_end


class NoProfiler(PassThroughProfiler):
    """Lightning's, without the new context that it makes around each of a hundred hooks a step."""

    nothing = nullcontext()

    def profile(self, action_name: str) -> nullcontext:
        return self.nothing


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar, without the run's number.

    Not the one by Rich: its thread, which draws while the model computes, costs a tenth of the training.
    """

    def get_metrics(self, trainer: Trainer, lit: LightningModule) -> dict:
        metrics = super().get_metrics(trainer, lit)
        return {name: value for name, value in metrics.items() if name != "v_num"}


class Speed(Callback):
    """Logs the seconds of each epoch, the training pictures seen so far, and how many a second outside validation."""

    def on_train_epoch_start(self, trainer: Trainer, lit: LightningModule) -> None:
        self.start, self.validation_seconds = time.perf_counter(), 0.0

    def on_validation_start(self, trainer: Trainer, lit: LightningModule) -> None:
        self.validation_start = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, lit: LightningModule) -> None:
        self.validation_seconds += time.perf_counter() - self.validation_start

    def on_train_epoch_end(self, trainer: Trainer, lit: LightningModule) -> None:
        seconds = time.perf_counter() - self.start
        pictures = int(trainer.strategy.reduce(torch.tensor(lit.train_bound.num_pictures), reduce_op="sum"))
        rate = pictures / (seconds - self.validation_seconds)
        seen = pictures * (trainer.current_epoch + 1)
        lit.tell({"epoch_seconds": seconds, "pictures_per_second": rate, "pictures_seen": float(seen)})


class Story(Callback):
    """What a run learns, into TensorBoard: pictures and histograms as it goes on, the latent space at its end.

    The pictures come after epochs 1, 2, 4, 8, ... and the last one: most happens in the first ones, and TensorBoard,
    which keeps ten images a tag, keeps them all up to 512 epochs. None is of the test set. For the figure
    `training_film` frames are kept in the run's folder. All of them are small: TensorBoard's writer works in Python.
    """

    def on_train_start(self, trainer: Trainer, lit: LightningModule) -> None:
        if trainer.global_step:
            return  # it was told when the run began
        charts = {
            "bound": ["Multiline", ["train/elbo", "train/importance_bound", "val/elbo"]],
            "reconstruction": ["Multiline", ["train/reconstruction", "val/reconstruction"]],
            "KL": ["Multiline", ["train/kl", "val/kl"]],
        }
        trainer.logger.experiment.add_custom_scalars({"training and validation, nats per picture": charts})
        hparams = {name: value for name, value in lit.hparams.items() if name != "palette"}
        hparams |= {f"data.{name}": value for name, value in trainer.datamodule.hparams.items()}
        trainer.logger.compare_by(hparams)

    def on_validation_epoch_end(self, trainer: Trainer, lit: LightningModule) -> None:
        if self.is_told(trainer):
            writer, step = trainer.logger.experiment, trainer.global_step
            writer.add_histogram("kl_per_dimension", torch.tensor([*lit.kl_per_dimension.compute().values()]), step)
            writer.add_histogram("posterior_means", lit.active_units.all_rows()[:MOST_CODES], step)

    def on_train_epoch_end(self, trainer: Trainer, lit: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if not (self.is_told(trainer) or is_filmed(epoch)):
            return
        still = png(frame(lit.vae))
        if trainer.log_dir:
            runs.write(runs.frame_of(Path(trainer.log_dir), epoch), still)
        if self.is_told(trainer):
            images = trainer.datamodule.pictures(self.split(trainer), 10).to(lit.device)
            pictures = {"reconstruction": png(reconstruction_grid(lit.vae, images, 1))}
            pictures |= {"samples": png(sample_grid(lit.vae, 36, 6, at_least=1))}
            if lit.vae.latent_dim <= 2:
                pictures["learned_manifold"] = still
            for name, picture in pictures.items():
                trainer.logger.add_png(name, picture, trainer.global_step)

    def on_fit_end(self, trainer: Trainer, lit: LightningModule) -> None:
        writer, data, split = trainer.logger.experiment, trainer.datamodule, self.split(trainer)
        images, labels = data.pictures(split, MOST_CODES), data.labels(split, MOST_CODES)
        means, _ = codes(lit.vae, images.to(lit.device))
        means = pad(means, (0, max(0, 3 - means.shape[1])))  # the projector shows nothing of fewer dimensions
        names = None if labels is None else [data.classes[label] for label in labels.tolist()]
        side = min(MOST_PIXELS, *images.shape[-2:])
        writer.add_embedding(means, names, resize(images, side, antialias=True), trainer.global_step, "posterior_means")
        best = best_elbo(trainer)
        if best is not None:
            writer.add_scalar("best_val_elbo", best, trainer.global_step)

    @staticmethod
    def is_told(trainer: Trainer) -> bool:
        epoch = trainer.current_epoch + 1
        return epoch & (epoch - 1) == 0 or epoch == trainer.max_epochs

    @staticmethod
    def split(trainer: Trainer) -> str:
        return "val" if trainer.datamodule.splits["val"] else "train"


def is_filmed(epoch: int) -> bool:
    """Whether a frame of that epoch is kept: of each one up to 32, of every other one up to 64, and so on."""
    return epoch % 2 ** max(0, (epoch - 1).bit_length() - 5) == 0


def png(picture: Tensor) -> bytes:
    """A picture, uint8 [3, H, W], as the content of a file; in grey if it is, and fast rather than small."""
    grey = torch.equal(picture[0], picture[1]) and torch.equal(picture[0], picture[2])
    return encode_png(picture[:1] if grey else picture, compression_level=1).numpy().tobytes()


def best_elbo(trainer: Trainer) -> float | None:
    """The highest validation ELBO of the run, nats per picture; None where there was no validation."""
    scores = [callback.best_model_score for callback in trainer.callbacks if isinstance(callback, BestCheckpoint)]
    return scores[0].item() if scores and scores[0] is not None else None
