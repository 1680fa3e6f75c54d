"""MNIST: 70,000 handwritten digits of 28 x 28, in torchvision's layout, downloaded and read by torchvision."""

import shutil
import tempfile
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file

from datamodules.base import ImageDataModule
from datamodules.blocks import Batch, ImageDataset
from datamodules.downloads import fetching, verify
from datamodules.seeds import BINARIZATION, derive_seed

Binarize = Literal["dynamic", "fixed", "threshold", "none"]
EVALUATION_SEED = 0


class MNIST(ImageDataModule):
    """MNIST in 50,000 / 10,000 / 10,000 images; validation is the end of the official training set.

    Args:
        val_size: images of the official 60,000 held out for validation; 0 trains on all of them.
        binarize: dynamic (each pixel is drawn as Bernoulli(grey): in training at each use, in validation and test
            once), fixed (once in training too), threshold (white if grey is above a half), or none (grey pixels).

    Raises:
        ValueError: an option is out of range.
    """

    name = "MNIST"
    image_shape = (1, 28, 28)
    classes = tuple("0123456789")
    sha256 = {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    }

    def __init__(self, val_size: int = 10_000, binarize: Binarize = "dynamic", **kwargs):
        super().__init__(**kwargs)
        if not 0 <= val_size < 60_000:
            raise ValueError(f"val_size: expected 0 to 59,999 of the 60,000 training images, got {val_size:,}")
        if binarize not in get_args(Binarize):
            raise ValueError(f"unknown binarize {binarize!r}: choose one of {', '.join(get_args(Binarize))}")
        self.val_size = val_size
        self.binarize = binarize
        self.binary = binarize != "none"

    @property
    def raw(self) -> Path:
        return self.data_dir / "MNIST" / "raw"

    def fetch(self) -> None:
        missing = [name for name in self.sha256 if not (self.raw / name).is_file()]
        if missing:
            self.download(missing)
        for name, sha256 in self.sha256.items():
            verify(self.raw / name, sha256)

    def download(self, missing: list[str]) -> None:
        """Download the files into a temporary folder beside their place, and move them once they are complete."""
        with fetching("MNIST", "its mirrors", missing, self.raw):
            folder = tempfile.mkdtemp(prefix=".download-", dir=self.raw)
            try:
                downloaded = datasets.MNIST(folder, download=True)
                for name in missing:
                    shutil.move(f"{downloaded.raw_folder}/{name}", self.raw / name)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def load(self) -> dict[str, ImageDataset]:
        images, labels = self.read("train")
        cuts = [len(images) - self.val_size, self.val_size]
        (train, val), (train_labels, val_labels) = images.split(cuts), labels.split(cuts)
        test, test_labels = self.read("t10k")
        if self.binarize != "dynamic":
            train = self.binarize_once(train)
        return {
            "train": ImageDataset(train, train_labels),
            "val": ImageDataset(self.binarize_once(val), val_labels),
            "test": ImageDataset(self.binarize_once(test), test_labels),
        }

    def read(self, part: str) -> tuple[Tensor, Tensor]:
        images = read_image_file(str(self.raw / f"{part}-images-idx3-ubyte")).unsqueeze(1)
        labels = read_label_file(str(self.raw / f"{part}-labels-idx1-ubyte")).to(torch.uint8)
        return images, labels

    def binarize_once(self, images: Tensor) -> Tensor:
        """Images [N, 1, 28, 28] as evaluation uses them, uint8: binarised with fixed noise, or grey."""
        if self.binarize in ("dynamic", "fixed"):
            generator = torch.Generator().manual_seed(EVALUATION_SEED)
            return torch.bernoulli(images / 255, generator=generator).mul_(255).to(torch.uint8)
        return threshold(images) if self.binarize == "threshold" else images

    def images(self, split: str, n: int | None = None) -> Tensor:
        return self.binarize_once(self._first(split, n).images) / 255  # binary images stay as they are

    def palette(self) -> tuple[tuple[int, ...], ...]:
        """Black and white if images are binarised, else the greys."""
        return ((0,), (255,)) if self.binary else super().palette()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if not (self.trainer.training and self.binarize == "dynamic"):
            return super().on_after_batch_transfer(batch, dataloader_idx)
        epoch, rank = self.trainer.current_epoch, self.trainer.global_rank
        block = self.trainer.fit_loop.batch_idx + 1  # the Trainer counts a block after its transfer
        seed = derive_seed(BINARIZATION, self.hparams.seed, epoch, block, rank)
        return batch._replace(images=draw_binary(batch.images, seed))


def threshold(images: Tensor) -> Tensor:
    """White if grey is above a half: uint8 -> uint8, 0 and 255."""
    return (images > 127).to(torch.uint8) * 255


def draw_binary(images: Tensor, seed: int) -> Tensor:
    """Each pixel as Bernoulli(grey / 255): uint8 -> float32, 0 and 1.

    White if a random byte, uniform on 0 to 254, is below the grey value. Black stays black and white stays white.
    """
    white = torch.empty(images.shape, device=images.device)  # as `out`: a fifth of the time of (noise < images).float()
    return torch.lt(random_bytes(images.shape, images.device, seed), images, out=white)


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
    values[again] = np.random.Generator(bits).integers(255, size=len(again), dtype=np.uint8)
    return torch.from_numpy(values).view(shape)
