"""MNIST: 70,000 handwritten digits of 28 x 28, in torchvision's layout, fetched and read by torchvision."""

import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file

from datamodules.base import Batch, ImageDataModule, ImageDataset, fetching, verify

BINARIZE = ("dynamic", "threshold", "none")
EVALUATION_SEED = 0
NOISE = 1  # keeps this noise apart from any other that is a function of seed, epoch, batch and rank


class MNIST(ImageDataModule):
    """MNIST in 50,000 / 10,000 / 10,000 images; validation is the end of the official training set.

    Args:
        val_size: images held out of the official 60,000 for validation; 0 trains on all of them.
        binarize: dynamic (each pixel rasterize as Bernoulli(grey): anew at each use in training, once and for all in
            validation and test), threshold (white where grey is above a half), or none (grey pixels).

    Raises:
        ValueError: an option that is out of range.
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

    def __init__(self, val_size: int = 10_000, binarize: str = "dynamic", **kwargs):
        super().__init__(**kwargs)
        if not 0 <= val_size < 60_000:
            raise ValueError(f"val_size: expected 0 to 59,999 of the 60,000 training images, got {val_size:,}")
        if binarize not in BINARIZE:
            raise ValueError(f"unknown binarize {binarize!r}: choose one of {', '.join(BINARIZE)}")
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
            verify(
                self.raw / name, sha256, "Delete it and it is fetched anew, or use --data Digits, which needs no file."
            )

    def download(self, missing: list[str]) -> None:
        """Fetch the files beside their place, and move them there once they are whole."""
        with fetching("MNIST", "its mirrors", missing, self.raw):
            folder = tempfile.mkdtemp(prefix=".download-", dir=self.raw)
            try:
                fetched = datasets.MNIST(folder, download=True)
                for name in missing:
                    shutil.move(f"{fetched.raw_folder}/{name}", self.raw / name)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def load(self) -> dict[str, ImageDataset]:
        images, labels = self.read("train")
        cuts = [len(images) - self.val_size, self.val_size]
        (train, val), (train_labels, val_labels) = images.split(cuts), labels.split(cuts)
        test, test_labels = self.read("t10k")
        if self.binarize == "threshold":
            train = threshold(train)
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
        """Held-out images [N, 1, 28, 28] as they stay, uint8: 0 and 255, or grey."""
        if self.binarize == "dynamic":
            generator = torch.Generator().manual_seed(EVALUATION_SEED)
            return torch.bernoulli(images / 255, generator=generator).mul(255).to(torch.uint8)
        return threshold(images) if self.binarize == "threshold" else images

    def images(self, split: str, n: int | None = None) -> Tensor:
        return self.binarize_once(self._some(split).images[:n]) / 255  # held-out ones are binary already, and stay

    def palette(self) -> tuple[tuple[int, ...], ...]:
        """Black and white, where every image is binarised; else the greys."""
        return ((0,), (255,)) if self.binary else super().palette()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if not (self.trainer.training and self.binarize == "dynamic"):
            return super().on_after_batch_transfer(batch, dataloader_idx)
        epoch, rank = self.trainer.current_epoch, self.trainer.global_rank
        batch_idx = self.trainer.fit_loop.batch_idx + 1  # the Trainer counts a batch once it is on the device
        key = hash((NOISE, self.hparams.seed, epoch, batch_idx, rank))
        generator = torch.Generator(batch.images.device).manual_seed(key)
        return batch._replace(images=draw_binary(batch.images, generator))


def threshold(images: Tensor) -> Tensor:
    """White where grey is above a half: uint8 -> uint8, 0 and 255."""
    return (images > 127).to(torch.uint8) * 255


def draw_binary(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each pixel as Bernoulli(grey / 255): uint8 -> float32, 0 and 1.

    White where a uniform 16-bit number lies below grey * 257. Four of them are cut from each 64-bit draw, which takes
    a tenth of the time of torch.bernoulli; the probabilities are right to 2^-16.
    """
    draws = -(-images.numel() // 4)
    noise = torch.randint(-(2**63), 2**63 - 1, (draws,), generator=generator, device=images.device)
    noise = noise.view(torch.int16)[: images.numel()].view(images.shape)
    return (noise < images.to(torch.int16).mul_(257).sub_(2**15)).float()
