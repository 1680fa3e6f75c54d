"""TensorBoard: the run's logger, and the images and histograms of a training."""

import shlex
import sys
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from functools import cached_property
from io import StringIO
from math import prod
from pathlib import Path
from textwrap import indent
from typing import Any

from filelock import FileLock
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.model_summary import ModelSummary
from torch.nn.functional import pad
from torchvision.io import encode_png

from vae import runs
from vae.callbacks.checkpoints import best_elbo
from vae.figures import encode_images, film_frame, reconstruction_grid, sample_grid, thumbnails
from vae.metrics import BOUND
from vae.objectives import is_bound

MAX_CODES = 2_000  # in the projector, which moves no more of them smoothly
MAX_THUMBNAIL_SIDE = 64  # pixels of an image in the projector: a sprite of MAX_CODES has 2,880, TensorBoard takes 8,192
MAX_GRID_SIDE = 2_000  # pixels of a grid of images
BANDS = "validation (line) and training (the other edge of the band), nats per image"
LINES = "training, nats per image"


class RunLogger(TensorBoardLogger):
    """TensorBoard in the run's own folder, which is taken and locked only when there is something to write.

    A start that fails, on bad data or a wrong option, then leaves no folder behind.

    Args:
        run_name: the name of a new run's folder, by default version_N.
        resumed: the folder of the run that is resumed, if one is.
    """

    def __init__(self, run_name: str | None = None, resumed: Path | None = None):
        super().__init__(resumed.parent if resumed else runs.ROOT, name="", default_hp_metric=False)
        self.run_name, self.resumed = run_name, resumed
        self.lock: FileLock | None = None

    @cached_property
    def folder(self) -> Path:
        """The run's folder: made and locked when it is first asked for."""
        folder = self.resumed or runs.new_run(self.run_name)
        self.lock = runs.lock_run(folder)
        return folder

    @property
    def version(self) -> str:
        return "" if rank_zero_only.rank else self.folder.name  # the Trainer broadcasts that of the first process

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self.lock:
            self.lock.release()

    @rank_zero_only
    def discard(self) -> None:
        """Remove the folder of a new run, if it was made."""
        if self.lock and not self.resumed:
            runs.discard_run(self.folder)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({runs.scalar_tag(name): value for name, value in metrics.items()}, step)

    @rank_zero_only
    def log_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Log the run's line of the HParams tab, which finds by itself what differs, and the values of the curves."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb  # a second

        # The tab shows a number with five digits, 2.0000, so a whole one is logged as text.
        values = {name: value if isinstance(value, bool | float) else as_text(value) for name, value in hparams.items()}
        self.experiment._get_file_writer().add_summary(hparams_pb(values, trial_id=self.version))


class TensorBoardImages(Callback):
    """Logs what a run learns: images and histograms after epochs 1, 2, 4, 8, ... and the last, codes at its end.

    Most happens in the first epochs, and TensorBoard, which keeps ten images a tag, keeps them all up to 512 epochs.
    None is of the test set. For the figure `training_film` frames are kept in the run's folder.
    """

    def on_train_epoch_start(self, trainer: Trainer, lit: LightningModule) -> None:
        if trainer.global_step:
            return  # the run has this in its log since its first epoch, before which config.yaml is written
        writer = trainer.logger.experiment
        hparams = {name: value for name, value in lit.hparams.items() if name != "palette"}
        hparams |= {f"data.{name}": value for name, value in trainer.datamodule.hparams.items()}
        trainer.logger.log_hparams(hparams | {"max_epochs": trainer.max_epochs})
        config = Path(trainer.log_dir or "", "config.yaml")
        texts = {"command": shlex.join(["python3", *sys.argv]), "summary": str(ModelSummary(lit, max_depth=3))}
        if config.is_file():
            texts["configuration"] = config.read_text()
        for name, text in texts.items():
            writer.add_text(name, indent(as_text(text), "    "), 0)  # as code

    def on_validation_epoch_end(self, trainer: Trainer, lit: LightningModule) -> None:
        if self.should_log(trainer):
            writer, columns = trainer.logger.experiment, lit.val_table.columns()
            writer.add_histogram("view/kl_per_dimension", columns["kl_per_dimension"].mean(0), trainer.global_step)
            writer.add_histogram("view/posterior_means", columns["mean"][:MAX_CODES], trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, lit: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch == 1 and trainer.datamodule.splits["val"]:
            trainer.logger.experiment.add_custom_scalars(custom_charts(lit.train_table.widths))
        if not (self.should_log(trainer) or keeps_frame(epoch)):
            return
        frame = film_frame(lit.vae)
        if trainer.log_dir:
            png = encode_png(frame, compression_level=1).numpy().tobytes()
            runs.write_atomically(runs.frame_path(Path(trainer.log_dir), epoch), png)
        if self.should_log(trainer):
            data, split = trainer.datamodule, self.split(trainer)
            images, vae = data.images(split, 10).to(lit.device), lit.vae.given(data.labels(split, 10))
            grids = {"reconstruction": reconstruction_grid(vae, images, 1, 2, MAX_GRID_SIDE)}
            grids |= {"samples": sample_grid(lit.vae, 36, 6, 1, 1, MAX_GRID_SIDE)}
            if lit.vae.latent_dim <= 2 and not lit.vae.needs_labels:
                grids["learned_manifold"] = frame
            for name, grid in grids.items():
                trainer.logger.experiment.add_image(f"view/{name}", grid, trainer.global_step)

    def on_fit_end(self, trainer: Trainer, lit: LightningModule) -> None:
        writer, data, split = trainer.logger.experiment, trainer.datamodule, self.split(trainer)
        count = max(1, min(MAX_CODES, runs.MAX_VALUES // prod(lit.vae.image_shape)))
        images, labels = data.images(split, count), data.labels(split, count)
        means, _ = encode_images(lit.vae.given(labels), images.to(lit.device))
        means = pad(means, (0, max(0, 3 - means.shape[1])))  # the projector shows nothing of fewer dimensions
        names = None if labels is None else [data.classes[label] for label in labels.tolist()]
        with redirect_stdout(StringIO()):  # it warns where a resumed run writes them again
            writer.add_embedding(
                means, names, thumbnails(images, MAX_THUMBNAIL_SIDE), trainer.global_step, "posterior_means"
            )
        best = best_elbo(trainer)
        if best is not None:
            writer.add_scalar(runs.scalar_tag("best_val_elbo"), best, trainer.global_step)

    @staticmethod
    def should_log(trainer: Trainer) -> bool:
        epoch = trainer.current_epoch + 1
        return epoch & (epoch - 1) == 0 or epoch == trainer.max_epochs

    @staticmethod
    def split(trainer: Trainer) -> str:
        return "val" if trainer.datamodule.splits["val"] else "train"


def custom_charts(names: Iterable[str]) -> dict[str, dict[str, list]]:
    """The custom scalars of a run whose training reports values of these names."""
    charts: dict[str, dict[str, list]] = {}
    for name in names:
        validated = f"val/{'elbo' if is_bound(name) else name}"
        if validated.removeprefix("val/") in BOUND:
            # The lines of one run have one colour: a line and a band can be distinguished, two lines cannot.
            charts.setdefault(BANDS, {})[name] = ["Margin", [validated, f"train/{name}", validated]]
        else:
            charts.setdefault(LINES, {})[name] = ["Multiline", [f"train/{name}"]]
    return charts


def as_text(value: Any) -> str:
    """A value in UTF-8: other bytes in the name of a file or folder are escaped."""
    return str(value).encode(errors="backslashreplace").decode()


def keeps_frame(epoch: int) -> bool:
    """Whether a frame of that epoch is kept: of each one up to 32, of every other one up to 64, and so on."""
    return epoch % 2 ** max(0, (epoch - 1).bit_length() - 5) == 0
