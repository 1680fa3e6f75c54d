"""Data sets: one file each, which says how that set is found, downloaded, verified and split."""

from datamodules.base import ImageDataModule
from datamodules.blocks import Batch, ImageDataset
from datamodules.crypto_punks import CryptoPunks
from datamodules.digits import Digits
from datamodules.errors import DataError
from datamodules.image_folder import ImageFolder
from datamodules.mnist import MNIST
from datamodules.torchvision_data import Torchvision

DATASETS = {kind.__name__: kind for kind in (MNIST, CryptoPunks, Digits, ImageFolder, Torchvision)}

__all__ = [
    "DATASETS",
    "MNIST",
    "Batch",
    "CryptoPunks",
    "DataError",
    "Digits",
    "ImageDataModule",
    "ImageDataset",
    "ImageFolder",
    "Torchvision",
]
