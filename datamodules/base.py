"""ImageDataset that fit in memory: held as one uint8 tensor per split, cut into batches, made floats on the device."""

import hashlib
import os
import socket
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

MAX_COLOURS = 1_024
DOWNLOAD_TIMEOUT = 60  # seconds that a server may say nothing


class DataError(Exception):
    """Data that is missing or not what it should be; the message says what was expected and what to do."""


class Batch(NamedTuple):
    """What a step receives.

    images: [B, C, H, W], uint8 from the loader, float32 in [0, 1] once on the device.
    labels: [B], or None where the images have none.
    index: [B], each image's place in its split.
    """

    images: Tensor
    labels: Tensor | None
    index: Tensor


class ImageDataset(Dataset):
    """A split: images [N, C, H, W] and, where there are any, labels [N], uint8."""

    def __init__(self, images: Tensor, labels: Tensor | None = None):
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, index: Tensor) -> Batch:
        return Batch(self.images[index], None if self.labels is None else self.labels[index], index)


def shard_batches(index: Tensor, batch_size: int, rank: int, world_size: int) -> list[Tensor]:
    """The batches [B] of one of several processes, when all of them together go through `index`, [N], once.

    Each process gets equally many, of equally many images or one fewer, and none that is empty: a rest of fewer
    images than there are processes joins the batches before it.
    """
    together = [*index.split(batch_size * world_size)]
    if len(together) > 1 and len(together[-1]) < world_size:
        together[-2:] = [torch.cat(together[-2:])]
    return [some.tensor_split(world_size)[rank] for some in together]


class ShuffledBatches(Sampler):
    """This process's batches of indices [B], in an order that is a function of (seed, epoch) alone."""

    def __init__(self, num_images: int, batch_size: int, seed: int, rank: int, world_size: int):
        self.num_images, self.seed = num_images, seed
        self.shared = {"batch_size": batch_size, "rank": rank, "world_size": world_size}
        self.epoch = 0
        self.sampler = self  # where the Trainer looks for whom to tell the epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(hash((self.seed, self.epoch)))
        yield from shard_batches(torch.randperm(self.num_images, generator=generator), **self.shared)

    def __len__(self) -> int:
        return len(shard_batches(torch.empty(self.num_images), **self.shared))


class ImageDataModule(LightningDataModule):
    """ImageDataset in three splits.

    A data set is a subclass with the things that are its own: `name`, for files and reports; `image_shape`, which is
    channels, height and width; `classes`, the labels' names, or None; `load`, and where it can be had from somewhere
    `fetch`.

    Args:
        data_dir: where the data is; by default $VAE_DATA_DIR, else data/.
        batch_size: images in a batch, on each device.
        seed: of the order and the noise of training data, which are functions of (seed, epoch).

    Raises:
        ValueError: an option that is out of range.
        DataError: from `prepare_data` and `setup`, data that is missing or not what it should be.
    """

    name: str
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...] | None = None
    binary = False  # whether pixels are 0 or 1 when they reach the model

    def __init__(self, data_dir: str | None = None, batch_size: int = 100, seed: int = 0):
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size: expected a whole number of at least 1, got {batch_size}")
        self.save_hyperparameters(logger=False)  # the model's have names in common with them
        self.save_hyperparameters({"dataset": type(self).__name__}, logger=False)
        self.splits: dict[str, ImageDataset] = {}
        self.test_split = "test"  # what test_dataloader serves

    @property
    def data_dir(self) -> Path:
        return Path(self.hparams.data_dir or os.environ.get("VAE_DATA_DIR", "data"))

    def fetch(self) -> None:
        """Download and verify whatever is missing from `data_dir`."""

    def load(self) -> dict[str, ImageDataset]:
        """Read the splits `train`, `val` and `test`; any but `train` may be empty."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        if not self.splits:
            self.fetch()

    def setup(self, stage: str | None = None) -> None:
        if not self.splits:
            self.splits = self.load()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return batch._replace(images=batch.images / 255)

    def state_dict(self) -> dict[str, int]:
        """How many images each split has: goes into the checkpoint, under the class's name."""
        return {split: len(images) for split, images in self.splits.items()}

    def images(self, split: str, n: int | None = None) -> Tensor:
        """The first n images of a split, or of `all` of them, to look at: float32 [n, C, H, W] in [0, 1].

        Raises:
            DataError: the split is empty, or as `prepare_data` and `setup`, which are called where they were not yet.
        """
        return self._some(split).images[:n] / 255

    def labels(self, split: str, n: int | None = None) -> Tensor | None:
        """The labels of the same images, [n], or None; raises the same."""
        labels = self._some(split).labels
        return None if labels is None else labels[:n]

    def mean_image(self) -> Tensor:
        """The mean of the training images: float32 [C, H, W] in [0, 1]."""
        images = self.splits["train"].images
        return images.sum(0, dtype=torch.int64) / (255 * len(images))

    def palette(self) -> tuple[tuple[int, ...], ...]:
        """The colours of the training images, 8-bit values.

        Raises:
            DataError: there are more than MAX_COLOURS.
        """
        found = torch.zeros(256 ** self.image_shape[0], dtype=torch.bool)
        for images in self.splits["train"].images.split(10_000):
            codes = sum(channel.int() << 8 * place for place, channel in enumerate(images.unbind(1)))
            found[codes.flatten()] = True
        codes = found.nonzero().squeeze(1)
        if len(codes) > MAX_COLOURS:
            raise DataError(
                f"{self.name} has {len(codes):,} colours, of which a palette holds {MAX_COLOURS:,} at most."
            )
        return tuple(
            tuple((code >> 8 * place) & 255 for place in range(self.image_shape[0])) for code in codes.tolist()
        )

    def train_dataloader(self) -> DataLoader:
        images = self.splits["train"]
        sizes = {"num_images": len(images), "seed": self.hparams.seed}
        return self._loader(images, ShuffledBatches(**sizes, **self._shared(images)))

    def val_dataloader(self) -> DataLoader:
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader:
        self._some(self.test_split)
        return self._in_order(self.test_split)

    def _some(self, split: str) -> ImageDataset:
        self.prepare_data()
        self.setup()
        if split == "all":
            parts = [self._some(part) for part in self.splits if len(self.splits[part])]
            labels = None if parts[0].labels is None else torch.cat([part.labels for part in parts])
            return ImageDataset(torch.cat([part.images for part in parts]), labels)
        if not len(self.splits[split]):
            raise DataError(f"{self.name} has no {split} images, as it was split for this model.")
        return self.splits[split]

    def _in_order(self, split: str) -> DataLoader:
        images = self.splits[split]
        whole = torch.arange(len(images))
        return self._loader(images, shard_batches(whole, **self._shared(images)) if len(images) else ())

    def _shared(self, images: ImageDataset) -> dict[str, int]:
        """How images are shared out among the Trainer's processes."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if 0 < len(images) < world_size:
            raise DataError(f"{len(images)} images are too few for {world_size} devices: use fewer.")
        return {"batch_size": self.hparams.batch_size, "rank": rank, "world_size": world_size}

    def _loader(self, images: ImageDataset, batches) -> DataLoader:
        # Without a generator of its own a DataLoader draws from the global one at the start of each epoch.
        return DataLoader(images, batch_sampler=batches, collate_fn=_as_is, generator=torch.Generator())


@contextmanager
def fetching(what: str, source: str, files: Sequence[str], folder: Path) -> Iterator[None]:
    """Around a download: a server that falls silent is given up, and whatever goes wrong is one error.

    Raises:
        DataError: something did.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    except (RuntimeError, OSError, EOFError, ValueError, HTTPException, zlib.error) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"{what} could not be downloaded from {source} ({reason[-1]}).\n"
            f"Put {', '.join(files)} into {folder}, or use --data Digits, which needs no file."
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _as_is(batch: Batch) -> Batch:
    return batch


def allocate_images(shape: Sequence[int], folder: Path) -> Tensor:
    """Room for images, uint8: in memory, or where they would fill half of it, in a nameless file in that folder."""
    if prod(shape) <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2:
        return torch.empty(shape, dtype=torch.uint8)
    with tempfile.TemporaryFile(dir=folder) as file:  # the mapping keeps it
        return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="w+", shape=tuple(shape)))


def verify(path: Path, sha256: str, remedy: str) -> None:
    """Check a file against the SHA-256 of its published content.

    Raises:
        DataError: it is missing or differs; the message ends with the remedy.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing.\n{remedy}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise DataError(
            f"{path} ({path.stat().st_size:,} bytes) is truncated or altered.\n"
            f"Expected SHA-256 {sha256},\nfound            {found}.\n{remedy}"
        )
