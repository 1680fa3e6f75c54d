"""MNIST: 70,000 handwritten digits of 28 x 28, in torchvision's layout, downloaded by torchvision."""

import shutil
import tempfile
from pathlib import Path

import torch
from torchvision import datasets

from datamodules.binarization import Binarize, BinarizedDataModule
from datamodules.blocks import ImageDataset
from datamodules.downloads import fetching, read_content, verify


class MNIST(BinarizedDataModule):
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
    num_train = 60_000
    sha256 = {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    }

    def __init__(self, val_size: int = 10_000, binarize: Binarize = "dynamic", **kwargs):
        super().__init__(val_size=val_size, binarize=binarize, **kwargs)

    @property
    def raw(self) -> Path:
        return self.data_dir / "MNIST" / "raw"

    def path(self, name: str) -> Path:
        """The file of that name, or, where it is missing, the packed one that is published."""
        return next(filter(Path.is_file, (self.raw / name, self.raw / f"{name}.gz")), self.raw / name)

    def fetch(self) -> None:
        missing = [name for name in self.sha256 if not self.path(name).is_file()]
        if missing:
            self.download(missing)
        for name, sha256 in self.sha256.items():
            verify(self.path(name), sha256)

    def download(self, missing: list[str]) -> None:
        """Download the files into a temporary folder beside their place, and move them once they are complete."""
        with fetching("MNIST", "its mirrors", [f"{name}[.gz]" for name in missing], self.raw):
            folder = tempfile.mkdtemp(prefix=".download-", dir=self.raw)
            try:
                downloaded = datasets.MNIST(folder, download=True)
                for name in missing:
                    shutil.move(f"{downloaded.raw_folder}/{name}", self.raw / name)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def load(self) -> dict[str, ImageDataset]:
        return self.split(self.read("train"), self.read("t10k"))

    def read(self, part: str) -> ImageDataset:
        """The images [N, 1, 28, 28] and labels [N] of the part train or t10k."""
        images, labels = (
            torch.frombuffer(
                bytearray(read_content(self.path(f"{part}-{kind}-ubyte"))), dtype=torch.uint8, offset=header
            )
            for kind, header in (("images-idx3", 16), ("labels-idx1", 8))
        )
        return ImageDataset(images.reshape(-1, *self.image_shape), labels)
