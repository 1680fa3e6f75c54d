"""Data sets: one file each, which says how that set is found, downloaded, verified and split."""

from datamodules.base import ImageDataModule
from datamodules.blocks import Batch, ImageDataset
from datamodules.crypto_punks import CryptoPunks
from datamodules.digits import Digits
from datamodules.errors import DataError, DataWarning
from datamodules.frey_face import FreyFace
from datamodules.image_folder import ImageFolder
from datamodules.mnist import MNIST
from datamodules.torchvision_data import Torchvision

DATASETS = {kind.__name__: kind for kind in (MNIST, CryptoPunks, Digits, FreyFace, ImageFolder, Torchvision)}


def register_dataset(kind: type[ImageDataModule]) -> type[ImageDataModule]:
    """Enter a data set in `DATASETS` under the name of its class; a decorator.

    Raises:
        ValueError: there is one of that name, or it is no data module.
    """
    if not (isinstance(kind, type) and issubclass(kind, ImageDataModule)):
        raise ValueError(f"data set: expected a subclass of datamodules.ImageDataModule, got {kind}")
    if kind.__name__ in DATASETS:
        raise ValueError(f"the data set {kind.__name__!r} exists already: choose another name")
    DATASETS[kind.__name__] = kind
    return kind


__all__ = [
    "DATASETS",
    "MNIST",
    "Batch",
    "CryptoPunks",
    "DataError",
    "DataWarning",
    "Digits",
    "FreyFace",
    "ImageDataModule",
    "ImageDataset",
    "ImageFolder",
    "Torchvision",
    "register_dataset",
]
