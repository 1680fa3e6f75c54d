"""Data sets of torchvision in its own layout: it downloads them, compares their MD5 and reads them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, get_args

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.functional import pil_to_tensor

from datamodules.binarization import Binarize, BinarizedDataModule
from datamodules.blocks import ImageDataset
from datamodules.downloads import REMEDY, fetching
from datamodules.errors import DataError

Name = Literal["FashionMNIST", "KMNIST", "EMNIST", "Omniglot", "CIFAR10", "SVHN"]
UNREADABLE = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AssertionError,
)  # what torchvision's readers raise


def read_drawings(found: Any) -> Tensor:
    """Omniglot's drawings of 105 x 105 in white on black, resized (bilinear, antialiased): uint8 [N, 1, 28, 28].

    In the order of their paths: torchvision's is that of the file system.
    """
    drawings = []
    for path in sorted(Path(found.target_folder).rglob("*.png")):
        try:
            with Image.open(path, formats=("PNG",)) as image:  # one of Pillow's other formats starts a program
                white = ImageOps.invert(image.convert("L"))
        except (OSError, SyntaxError) as error:  # the latter of a damaged PNG
            raise DataError(f"{path} cannot be read: {error}.\n{REMEDY}") from error
        drawings.append(pil_to_tensor(white.resize((28, 28), Image.Resampling.BILINEAR)))
    return torch.stack(drawings)


class Source(NamedTuple):
    """A data set of torchvision.

    train, test: the arguments of its class for the official training and test images.
    sizes: the numbers of those images.
    files: the pattern of the files that are kept in `data_dir`.
    images: of an instance of its class, the images: uint8 [N, C, H, W].
    archives: the pattern of the published files, if torchvision unpacks those that are in `data_dir` already.
    """

    train: dict[str, Any]
    test: dict[str, Any]
    sizes: tuple[int, int]
    files: str
    images: Callable[[Any], Tensor] = lambda found: found.data.unsqueeze(1)
    image_shape: tuple[int, int, int] = (1, 28, 28)
    archives: str | None = None


SOURCES = {
    "FashionMNIST": Source(
        {"train": True},
        {"train": False},
        (60_000, 10_000),
        "FashionMNIST/raw/*-ubyte",
        archives="FashionMNIST/raw/*.gz",
    ),
    "KMNIST": Source(
        {"train": True},
        {"train": False},
        (60_000, 10_000),
        "KMNIST/raw/*-ubyte",
        archives="KMNIST/raw/*.gz",
    ),
    "EMNIST": Source(
        {"split": "balanced", "train": True},
        {"split": "balanced", "train": False},
        (112_800, 18_800),
        "EMNIST/raw/emnist-balanced-*-ubyte",
        lambda found: found.data.mT.unsqueeze(1).contiguous(),  # the files hold each image transposed
        archives="EMNIST/raw/gzip.zip",
    ),
    "Omniglot": Source(
        {"background": True},
        {"background": False},
        (19_280, 13_180),
        "omniglot-py/**/*",
        read_drawings,
    ),
    "CIFAR10": Source(
        {"train": True},
        {"train": False},
        (50_000, 10_000),
        "cifar-10-batches-py/*",
        lambda found: torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous(),
        (3, 32, 32),
        "cifar-10-python.tar.gz",
    ),
    "SVHN": Source(
        {"split": "train"},
        {"split": "test"},
        (73_257, 26_032),
        "*_32x32.mat",
        lambda found: torch.from_numpy(found.data).contiguous(),
        (3, 32, 32),
    ),
}


class Torchvision(BinarizedDataModule):
    """A data set of torchvision: its training and test images; validation is the end of the former.

    EMNIST is its split `balanced`, of 47 classes, turned upright. Omniglot's drawings are made white on black
    and resized to 28 x 28 (bilinear, antialiased); its background set is trained on, its evaluation set is the test,
    and since their characters differ it has no labels here. CIFAR10 and SVHN are in colour, 3 x 32 x 32.

    Args:
        dataset: which data set.
        val_size: images of the official training set held out for validation; Omniglot has 19,280: 3,000 suit it.
        binarize: of grey images, as MNIST's: dynamic, fixed, threshold or none. Colour images stay as they are.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self, dataset: Name = "FashionMNIST", val_size: int = 10_000, binarize: Binarize = "dynamic", **kwargs
    ):
        if dataset not in get_args(Name):
            raise ValueError(f"unknown dataset {dataset!r}: choose one of {', '.join(get_args(Name))}")
        self.source = SOURCES[dataset]
        self.name, self.image_shape, self.num_train = dataset, self.source.image_shape, self.source.sizes[0]
        is_grey = self.image_shape[0] == 1
        if not is_grey and binarize not in ("dynamic", "none"):  # the first is the default: the command line passes it
            raise ValueError(f"binarize: only grey images are, and {dataset} is in colour; got {binarize!r}")
        super().__init__(val_size=val_size, binarize=binarize if is_grey else "none", **kwargs)
        self.save_hyperparameters({"data_module": "Torchvision", "dataset": dataset}, logger=False)

    def fetch(self) -> None:
        try:
            self.open(self.data_dir)
        except UNREADABLE:  # missing, incomplete or damaged
            self.download()

    def open(self, root: Path, download: bool = False) -> list[Any]:
        """torchvision's training and test set in a folder. Pickled files are compared with their MD5 before.

        Raises:
            UNREADABLE: a file is missing, incomplete or damaged.
        """
        kind = getattr(datasets, self.name)
        found = [kind(root, download=download, **options) for options in (self.source.train, self.source.test)]
        if (sizes := tuple(map(len, found))) != self.source.sizes:
            raise ValueError(f"{self.name} has {self.source.sizes} images, the files hold {sizes}")
        return found

    def download(self) -> None:
        """Download into a temporary folder inside `data_dir`, and move the files once all of them can be read.

        torchvision downloads no archive that is in its place and has the right MD5.
        """
        with (
            fetching(self.name, "torchvision's source", [self.source.archives or self.source.files], self.data_dir),
            TemporaryDirectory(prefix=".download-", dir=self.data_dir, ignore_cleanup_errors=True) as name,
        ):
            folder = Path(name)
            for path in self.data_dir.glob(self.source.archives) if self.source.archives else ():
                copy = folder / path.relative_to(self.data_dir)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
            self.open(folder, download=True)
            for path in filter(Path.is_file, sorted(folder.glob(self.source.files))):
                target = self.data_dir / path.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)

    def load(self) -> dict[str, ImageDataset]:
        train, test = map(self.convert, self.open(self.data_dir))
        for split, found in (("train", train), ("test", test)):
            found.check(split, self.image_shape, self.classes)
        return self.split(train, test)

    def convert(self, found: Any) -> ImageDataset:
        """The images and labels of torchvision's training or test set."""
        labels = getattr(found, "targets", getattr(found, "labels", None))
        if labels is None:
            return ImageDataset(self.source.images(found))
        self.classes = tuple(getattr(found, "classes", "0123456789"))  # SVHN names none
        return ImageDataset(self.source.images(found), torch.as_tensor(labels).to(torch.uint8))
