"""Digits: 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn. Needs no download."""

import torch

from datamodules.base import SPLITS, ImageDataModule
from datamodules.blocks import ImageDataset


class Digits(ImageDataModule):
    """1,797 handwritten digits of 8 x 8, 17 grey levels, in ten classes; 1,197 / 300 / 300."""

    name = "digits"
    image_shape = (1, 8, 8)
    classes = tuple("0123456789")

    def load(self) -> dict[str, ImageDataset]:
        from sklearn.datasets import load_digits  # here: the import is slow, and other data sets do not need it

        digits = load_digits()
        images = torch.as_tensor(digits.images / 16 * 255).round().to(torch.uint8).unsqueeze(1)
        labels = torch.as_tensor(digits.target).to(torch.uint8)
        cuts = [1_197, 300, 300]
        return dict(zip(SPLITS, map(ImageDataset, images.split(cuts), labels.split(cuts)), strict=True))
