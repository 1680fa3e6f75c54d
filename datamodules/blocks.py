"""A split in memory, and its images in blocks of batches: indexed, and moved to the device, a block at a time."""

from collections.abc import Iterator
from math import ceil, prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from datamodules.errors import DataError
from datamodules.seeds import PART_OF_SPLIT, SHUFFLING, derive_seed

SPLITS = ("train", "val", "test")
CHUNK_BYTES = 2**20  # of the images that are converted to wider integers at a time
EXPECTED = """Return {"train": ImageDataset(images, labels), "val": ..., "test": ...} from load():
images a uint8 tensor [N, C, H, W] of values 0 to 255, labels an integer tensor [N] or None."""


class Batch(NamedTuple):
    """A batch, or in training a block of several batches, to be cut by `images.split(sizes)`.

    images: [B, C, H, W], uint8 from the loader, float32 in [0, 1] on the device.
    labels: [B], or None if the images have none.
    index: [B], each image's place in its split.
    sizes: the size of each batch; they sum to B.
    """

    images: Tensor
    labels: Tensor | None
    index: Tensor
    sizes: tuple[int, ...]


class ImageDataset(Dataset):
    """A split: images [N, C, H, W], uint8, and labels [N], integers, or None.

    keys: [N], int64, equal for copies of an image alone, or None. With them a checkpoint says what it was trained on,
        and no image of an earlier split is in a later one.
    """

    def __init__(self, images: Tensor, labels: Tensor | None = None, keys: Tensor | None = None):
        self.images = images
        self.labels = labels
        self.keys = keys

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, batches: list[Tensor]) -> Batch:
        index = torch.cat(batches)  # index_select copies whole images: a tenth of the time of images[index]
        labels = None if self.labels is None else self.labels.index_select(0, index)
        return Batch(self.images.index_select(0, index), labels, index, tuple(map(len, batches)))

    def subset(self, index: Tensor) -> "ImageDataset":
        """A copy of some of the images, which an index of any kind chooses."""
        return ImageDataset(*(part if part is None else part[index] for part in (self.images, self.labels, self.keys)))

    def to(self, device: torch.device) -> "ImageDataset":
        """The same split on a device."""
        return ImageDataset(self.images.to(device), None if self.labels is None else self.labels.to(device))

    def chunks(self) -> tuple[Tensor, ...]:
        """The images as views of about a megabyte each."""
        return self.images.split(max(1, CHUNK_BYTES // prod(self.images.shape[1:])))

    def check(self, split: str, image_shape: tuple[int, int, int], classes: tuple[str, ...] | None) -> None:
        """Check types, shapes and labels.

        Raises:
            DataError: one of them is not as expected; the message says what `load` must return.
        """
        shape = ", ".join(map(str, image_shape))
        for name, value in (("images", self.images), ("labels", self.labels)):
            if not (isinstance(value, Tensor) or name == "labels" and value is None):
                raise DataError(f"{split} {name}: expected a tensor, got {type(value).__name__}.\n{EXPECTED}")
        if self.images.dtype != torch.uint8:
            raise DataError(f"{split} images: expected torch.uint8, got {self.images.dtype}.\n{EXPECTED}")
        if self.images.ndim != 4 or tuple(self.images.shape[1:]) != tuple(image_shape):
            raise DataError(
                f"{split} images: expected shape [N, {shape}] (image_shape), got {list(self.images.shape)}.\n{EXPECTED}"
            )
        if self.keys is not None and (self.keys.dtype != torch.int64 or self.keys.shape != self.images.shape[:1]):
            found = f"{self.keys.dtype} {list(self.keys.shape)}"
            raise DataError(f"{split} keys: expected torch.int64 [{len(self)}], got {found}.\n{EXPECTED}")
        if self.labels is None:
            return
        if self.labels.is_floating_point() or self.labels.shape != self.images.shape[:1]:
            found = f"{self.labels.dtype} {list(self.labels.shape)}"
            raise DataError(f"{split} labels: expected integers [{len(self)}], got {found}.\n{EXPECTED}")
        if classes is None:
            raise DataError(f"{split} labels: the data set has labels, but no classes. Set classes to their names.")
        if len(self) and not 0 <= self.labels.min() <= self.labels.max() < len(classes):
            found = f"{self.labels.min()} to {self.labels.max()}"
            raise DataError(f"{split} labels: expected 0 to {len(classes) - 1}, one for each of classes, got {found}.")


def shard_batches(index: Tensor, batch_size: int, rank: int, world_size: int) -> list[Tensor]:
    """The batches [B] of one process, if all processes together pass once over `index`, [N].

    Step k takes the same images on any number of processes with the same total batch size. Every process takes equally
    many steps, with batches of equal size or of one image fewer, never empty: a rest of fewer images than processes
    joins the step before.
    """
    steps = [*index.split(batch_size * world_size)]
    if len(steps) > 1 and len(steps[-1]) < world_size:
        steps[-2:] = [torch.cat(steps[-2:])]
    return [step.tensor_split(world_size)[rank] for step in steps]


class BlockSampler(Sampler[list[Tensor]]):
    """The batches of indices of one process, `steps_per_block` at a time.

    With a seed the order is a function of (seed, epoch). The Trainer sets the epoch; outside of it each pass is the
    next epoch. Without a seed the images come in the order of the split; if there are more than `at_most`, some chosen
    at random, the same each time.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        steps_per_block: int = 1,
        seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        at_most: int | None = None,
    ):
        self.num_images, self.steps_per_block, self.seed, self.device = num_images, steps_per_block, seed, device
        self.at_most = num_images if at_most is None else min(at_most, num_images)
        self.sharding = {"batch_size": batch_size, "rank": rank, "world_size": world_size}
        self.steps = len(shard_batches(torch.empty(self.at_most), **self.sharding)) if num_images else 0
        self.epoch = 0
        self.sampler = self  # the Trainer looks for set_epoch at batch_sampler.sampler

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Tensor]]:
        order = torch.arange(self.num_images)
        if self.seed is not None:
            generator = torch.Generator().manual_seed(derive_seed(SHUFFLING, self.seed, self.epoch))
            order = torch.randperm(self.num_images, generator=generator)
        elif self.at_most < self.num_images:
            generator = torch.Generator().manual_seed(derive_seed(PART_OF_SPLIT))
            order = torch.randperm(self.num_images, generator=generator)[: self.at_most].sort().values
        self.epoch += 1
        batches = shard_batches(order.to(self.device), **self.sharding)
        for first in range(0, self.steps, self.steps_per_block):
            yield batches[first : first + self.steps_per_block]

    def __len__(self) -> int:
        return ceil(self.steps / self.steps_per_block)

    def num_steps(self, num_blocks: float) -> int:
        """The optimiser steps in the first blocks of an epoch; its last block may be short."""
        return int(min(self.steps, num_blocks * self.steps_per_block))
