"""Images with an official training and test set: the validation part, and the binarisation of grey pixels."""

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from datamodules.base import SPLITS, ImageDataModule
from datamodules.blocks import Batch, ImageDataset
from datamodules.seeds import BINARIZATION, FIXED_BINARIZATION, derive_seed

Binarize = Literal["dynamic", "fixed", "threshold", "none"]


class BinarizedDataModule(ImageDataModule):
    """The base of such data sets: a subclass defines `num_train`, and `load`, which returns `self.split(train, test)`.

    Args:
        val_size: images at the end of the official training set that are held out for validation.
        binarize: dynamic, fixed, threshold or none, as `MNIST` describes them.

    Raises:
        ValueError: an option is out of range.
    """

    num_train: int  # images of the official training set

    def __init__(self, val_size: int, binarize: Binarize, **kwargs):
        super().__init__(**kwargs)
        if type(val_size) is not int or not 0 <= val_size < self.num_train:
            expected = f"0 to {self.num_train - 1:,} of the {self.num_train:,} training images"
            raise ValueError(f"val_size: expected {expected}, got {val_size!r}")
        if binarize not in get_args(Binarize):
            raise ValueError(f"unknown binarize {binarize!r}: choose one of {', '.join(get_args(Binarize))}")
        self.val_size = val_size
        self.binarize = binarize
        self.binary = binarize != "none"

    def split(self, train: ImageDataset, test: ImageDataset) -> dict[str, ImageDataset]:
        """The three splits of the official two, binarised as they are used."""
        cuts = [len(train) - self.val_size, self.val_size]
        labels = (None, None) if train.labels is None else train.labels.split(cuts)
        train, val = map(ImageDataset, train.images.split(cuts), labels)
        fixed = {"val": val, "test": test} | ({} if self.binarize == "dynamic" else {"train": train})
        return {"train": train} | {
            name: ImageDataset(self.binarize_once(part.images, name), part.labels) for name, part in fixed.items()
        }

    def binarize_once(self, images: Tensor, split: str) -> Tensor:
        """The first images of a split, [N, C, H, W], as evaluation uses them, uint8: binarised once, or as they are.

        A pixel's draw is a function of split and place: torch draws in order, so of no number of images.
        """
        if self.binarize in ("dynamic", "fixed"):
            generator = torch.Generator().manual_seed(derive_seed(FIXED_BINARIZATION, SPLITS.index(split)))
            noise = torch.randint(255, images.shape, generator=generator, dtype=torch.uint8)
            return (noise < images).to(torch.uint8) * 255
        return threshold(images) if self.binarize == "threshold" else images

    def images(self, split: str, n: int | None = None) -> Tensor:
        return self.binarize_once(self._first(split, n).images, "train") / 255  # binary images stay as they are

    def palette(self) -> tuple[tuple[int, ...], ...]:
        """Black and white if images are binarised, else the colours of the training images."""
        return ((0,), (255,)) if self.binary else super().palette()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if not (self.trainer.training and self.binarize == "dynamic"):
            return super().on_after_batch_transfer(batch, dataloader_idx)
        seed = derive_seed(BINARIZATION, self.hparams.seed, self.trainer.current_epoch, self.trainer.global_rank)
        block = self.trainer.fit_loop.batch_idx + 1  # the Trainer counts a block after its transfer
        white = torch.empty(batch.images.shape, device=batch.images.device)
        steps = zip(batch.images.split(batch.sizes), white.split(batch.sizes), strict=True)
        for step, (grey, out) in enumerate(steps, start=block * self.hparams.steps_per_block):
            draw_binary(grey, seed + step, out)
        return batch._replace(images=white)


def threshold(images: Tensor) -> Tensor:
    """White if grey is above a half: uint8 -> uint8, 0 and 255."""
    return (images > 127).to(torch.uint8) * 255


def draw_binary(images: Tensor, seed: int, out: Tensor) -> Tensor:
    """Each pixel as Bernoulli(grey / 255): uint8 -> `out`, float32, 0 and 1.

    White if a random byte, uniform on 0 to 254, is below the grey value. Black stays black and white stays white.
    """
    noise = random_bytes(images.shape, images.device, seed)
    return torch.lt(noise, images, out=out)  # a fifth of the time of (noise < images).float()


def random_bytes(shape: torch.Size, device: torch.device, seed: int) -> Tensor:
    """Independent uint8 values, uniform on 0 to 254.

    On the CPU they are the bytes of SFC64, all of whose 64 bits NumPy documents as random; 255 is drawn again. That
    takes a fifth of the time of torch.randint, which is used on other devices and relies on no bits but on its range.
    """
    if device.type != "cpu":
        generator = torch.Generator(device).manual_seed(seed)
        return torch.randint(255, shape, generator=generator, device=device, dtype=torch.uint8)
    bits = np.random.SFC64(seed)
    values = bits.random_raw(-(-shape.numel() // 8)).view(np.uint8)[: shape.numel()]
    again = np.flatnonzero(values == 255)
    values[again] = bits.random_raw(len(again)) % 255  # of 2^64 values: none is likelier by more than 2^-56
    return torch.from_numpy(values).view(shape)
