"""The base of all data sets: three splits of images that fit in memory, loaded in blocks, made floats on the device."""

import os
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.blocks import EXPECTED, SPLITS, Batch, BlockSampler, ImageDataset
from datamodules.errors import DataError, DataWarning
from datamodules.memory import fits_on_gpu
from datamodules.split_record import check_record, describe_changes, held_out, lineage, record_splits

DEFAULT_BATCH_SIZE = 100
MIN_STEPS = 10  # an epoch, where the batch size is chosen
MAX_COLOURS = 1_024


class ImageDataModule(LightningDataModule):
    """Images in three splits.

    A data set is a subclass that defines `image_shape` (channels, height, width) and `load`; `name`, for files and
    reports, if it is not that of the class; `classes`, the names of the labels, if there are any; and `fetch`, if the
    data can be downloaded.

    The training loader yields blocks of `steps_per_block` batches, which are indexed and transferred to the device at
    once; the model takes one optimiser step per batch. Options of the Trainer that count batches, such as
    `limit_train_batches`, count blocks. Validation and test loaders yield single batches.

    Args:
        data_dir: the folder of the data; default: $VAE_DATA_DIR, or data/.
        batch_size: images of a training step, on each device; null: 100, but at most a tenth of the training images.
        steps_per_block: training steps of a block. No number depends on it: it is an option of speed.
        seed: of the order of the training images, a function of (seed, epoch), and of their noise, one of (seed, epoch,
            step, rank); default: that of `seed_everything`, or 0.

    Raises:
        ValueError: an option is out of range.
        DataError: from `prepare_data` and `setup`: data is missing or invalid.
    """

    classes: tuple[str, ...] | None = None
    binary = False  # whether pixels are 0 or 1 when they reach the model

    def __init__(
        self,
        data_dir: str | None = None,
        batch_size: int | None = DEFAULT_BATCH_SIZE,
        steps_per_block: int = 10,
        seed: int | None = None,
    ):
        super().__init__()
        given = {"batch_size": 1 if batch_size is None else batch_size, "steps_per_block": steps_per_block}
        for option, value in given.items():
            if type(value) is not int or value < 1:  # True is an int, too
                raise ValueError(f"{option}: expected a whole number of at least 1, got {value!r}")
        if seed is None:
            seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        if type(seed) is not int or seed < 0:
            raise ValueError(f"seed: expected a whole number of at least 0, got {seed!r}")
        self.save_hyperparameters(logger=False)  # the model has hyper-parameters of the same names
        # A link stays one: it is the name of a folder that the settings can hold, whatever bytes the folder's own has.
        resolved = {"data_dir": data_dir and str(_expand(data_dir).absolute()), "seed": seed}
        self.save_hyperparameters({"dataset": type(self).__name__, **resolved}, logger=False)
        self.splits: dict[str, ImageDataset] = {}
        self.trained_on: dict[str, Any] | None = None  # the record of what the model's weights were trained on before
        self.test_split = "test"  # what test_dataloader loads
        self.test_batch_size: int | None = None  # by default that of training
        self.num_test_images: int | None = None  # a part of the split, the same each time; by default all

    @cached_property
    def name(self) -> str:
        """The data set's name in files and reports."""
        return type(self).__name__

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width: each data set defines its own."""
        raise DataError(f"{type(self).__name__} has no image_shape: define it as (channels, height, width).")

    @property
    def data_dir(self) -> Path:
        return _expand(self.hparams.data_dir or os.environ.get("VAE_DATA_DIR") or "data")

    def fetch(self) -> None:
        """Download and verify whatever is missing from `data_dir`."""

    def load(self) -> dict[str, ImageDataset]:
        """Read the splits `train`, `val` and `test`; `val` and `test` may be empty."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        if not self.splits:
            self.fetch()

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        splits = self.load()
        if not isinstance(splits, dict) or splits.keys() != set(SPLITS):
            found = ", ".join(map(str, splits)) if isinstance(splits, dict) else type(splits).__name__
            raise DataError(f"load() returned {found}.\n{EXPECTED}")
        for split, dataset in splits.items():
            if not isinstance(dataset, ImageDataset):
                raise DataError(f"{split}: expected an ImageDataset, got {type(dataset).__name__}.\n{EXPECTED}")
            dataset.check(split, self.image_shape, self.classes)
        if not len(splits["train"]):
            raise DataError(f"{self.name} has no training images.")
        self.splits = held_out({split: splits[split] for split in SPLITS}, {})
        if copies := self._fewer_than(splits):
            warnings.warn(
                f"{self.name}: left out {copies}, copies of images of another split.", DataWarning, stacklevel=1
            )
        if self.trained_on is not None:
            self._leave_out_trained(self.trained_on)

    def exclude_trained(self, record: Mapping[str, Any]) -> None:
        """Leave out of validation and test what a model was trained on, or chosen by; warn where the data has changed.

        Training that begins from the model's weights hands the record on.

        Args:
            record: that of the model's own split, which its checkpoint holds.

        Raises:
            DataError: it is no record of a split.
        """
        self.trained_on = check_record(record)
        if self.splits:
            self._leave_out_trained(self.trained_on)

    def _leave_out_trained(self, then: Mapping[str, Any]) -> None:
        self.splits = held_out(self.splits, then.get("initial", {}))
        changes = describe_changes(then, record_splits(self.splits))
        splits, self.splits = self.splits, held_out(self.splits, then)
        if left_out := self._fewer_than(splits):
            changes = f"{changes}. Left out {left_out}: the model was trained on them, or its best epoch chosen by them"
        if "keys" in self.state_dict() and not all("keys" in record for record in lineage(then)):
            unknown = "its checkpoint does not say on which. If they have changed, it may be tested on some of those"
            changes = f"{unknown} ({changes})" if changes else unknown
            warnings.warn(f"{self.name}: the model was trained on its images, {changes}.", DataWarning, stacklevel=1)
        elif changes:
            warnings.warn(f"{self.name} has changed since training: {changes}.", DataWarning, stacklevel=1)

    def _fewer_than(self, splits: Mapping[str, ImageDataset]) -> str:
        """How many images the splits have fewer than those, in words; empty if none."""
        fewer = {split: len(splits[split]) - len(dataset) for split, dataset in self.splits.items()}
        return ", ".join(f"{n:,} {split} images" for split, n in fewer.items() if n)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return batch._replace(images=batch.images / 255)

    def state_dict(self) -> dict[str, Any]:
        """The record of the split, which the checkpoint holds under the class's name."""
        return record_splits(self.splits) | ({} if self.trained_on is None else {"initial": self.trained_on})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare the data with that of a run that is resumed.

        Raises:
            DataError: it has changed, or the state is no record of a split.
        """
        record = check_record(state)
        self.trained_on = record.get("initial")
        self.splits = held_out(self._loaded(), self.trained_on or {})
        if changes := describe_changes(record, self.state_dict()):
            raise DataError(
                f"{self.name} has changed since the run began: {changes}.\n"
                "Resume it with the data it began with, or begin a new run."
            )

    def images(self, split: str, n: int | None = None) -> Tensor:
        """The first n images of a split, or of `all` splits, to look at: float32 [n, C, H, W] in [0, 1].

        Raises:
            ValueError: the split is none of train, val, test and all; n is no whole number of at least 0.
            DataError: the split is empty, or as `prepare_data` and `setup`, which are called if they were not yet.
        """
        return self._first(split, n).images / 255

    def labels(self, split: str, n: int | None = None) -> Tensor | None:
        """The labels of the same images, [n], or None; raises the same."""
        return self._first(split, n).labels

    def _loaded(self) -> dict[str, ImageDataset]:
        """The splits; raises as `prepare_data` and `setup`, which are called if they were not yet."""
        self.prepare_data()
        self.setup()
        return self.splits

    def mean_image(self) -> Tensor:
        """The mean of the training images: float32 [C, H, W] in [0, 1]."""
        train = self._loaded()["train"]
        return sum(chunk.sum(0, dtype=torch.int64) for chunk in train.chunks()) / (255 * len(train))

    def palette(self) -> tuple[tuple[int, ...], ...]:
        """The colours of the training images, 8-bit values.

        Raises:
            DataError: there are more than MAX_COLOURS.
        """
        found = torch.zeros(256 ** self.image_shape[0], dtype=torch.bool)
        for chunk in self._loaded()["train"].chunks():
            codes = sum(channel.int() << 8 * place for place, channel in enumerate(chunk.unbind(1)))
            found[codes.flatten()] = True
        codes = found.nonzero().squeeze(1)
        if len(codes) > MAX_COLOURS:
            raise DataError(f"{self.name} has {len(codes):,} colours; a palette holds at most {MAX_COLOURS:,}.")
        return tuple(
            tuple((code >> 8 * place) & 255 for place in range(self.image_shape[0])) for code in codes.tolist()
        )

    def num_classes(self) -> int:
        """The number of labels.

        Raises:
            DataError: the images have none.
        """
        self._loaded()
        if self.classes is None:
            raise DataError(f"{self.name} has no labels, which a conditional model needs.")
        return len(self.classes)

    def train_dataloader(self) -> DataLoader:
        train, shuffled = self._loaded()["train"], True
        if self.trainer:
            shuffled = not self.trainer.overfit_batches  # which asks for the same batches in each epoch
            device = self.trainer.strategy.root_device
            train = train.to(device) if fits_on_gpu(train.images.nbytes, device) else train
        seed = self.hparams.seed if shuffled else None
        return self._loader(train, self._train_batch_size(), steps_per_block=self.hparams.steps_per_block, seed=seed)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self._loaded()["val"], self.hparams.batch_size or DEFAULT_BATCH_SIZE)

    def test_dataloader(self) -> DataLoader:
        self._first(self.test_split, 0)
        batch_size = self.test_batch_size or self.hparams.batch_size or DEFAULT_BATCH_SIZE
        return self._loader(self.splits[self.test_split], batch_size, at_most=self.num_test_images)

    predict_dataloader = test_dataloader

    def _train_batch_size(self) -> int:
        """The option `batch_size`; without one, so many images that an epoch has at least MIN_STEPS steps."""
        _, world_size = self._processes()
        chosen = max(1, min(DEFAULT_BATCH_SIZE, len(self.splits["train"]) // (MIN_STEPS * world_size)))
        return self.hparams.batch_size or chosen

    def _processes(self) -> tuple[int, int]:
        """The rank of this process and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, dataset: ImageDataset, batch_size: int, **options) -> DataLoader:
        rank, world_size = self._processes()
        num_images = min(len(dataset), options.get("at_most") or len(dataset))
        if 0 < num_images < world_size:
            raise DataError(f"{num_images} images are too few for {world_size} devices: use fewer devices.")
        sampler = BlockSampler(
            len(dataset), batch_size, rank=rank, world_size=world_size, device=dataset.images.device, **options
        )
        # Without a generator of its own a DataLoader draws from the global one at the start of each epoch.
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=_identity, generator=torch.Generator())

    def _first(self, split: str, n: int | None) -> ImageDataset:
        """The first n images of a split or of `all` of them; those of one split are not copied."""
        if split not in (*SPLITS, "all"):
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}, all; got {split!r}")
        parts = [part for name, part in self._loaded().items() if split in (name, "all") and len(part)]
        if not parts:
            raise DataError(f"{self.name} has no {split} images, as it was split for this model.")
        if n is not None and (type(n) is not int or n < 0):
            raise ValueError(f"n: expected a whole number of at least 0, got {n!r}")
        labelled = all(part.labels is not None for part in parts)
        images = _first_rows([part.images for part in parts], n)
        return ImageDataset(images, _first_rows([part.labels for part in parts], n) if labelled else None)


def _expand(folder: str) -> Path:
    return Path(os.path.expanduser(folder))  # noqa: PTH111  Path.expanduser raises for a user that does not exist


def _first_rows(tensors: list[Tensor], n: int | None) -> Tensor:
    """The first n rows of several tensors, one after the other."""
    taken = []
    for tensor in tensors:
        taken.append(tensor[:n])
        n = None if n is None else n - len(taken[-1])
    return taken[0] if len(taken) == 1 else torch.cat(taken)


def _identity(batch: Batch) -> Batch:
    return batch
