"""ImageFolder: a folder of the user's own images."""

import hashlib
import warnings
from math import prod
from pathlib import Path
from typing import Literal

import torch
from PIL import Image, ImageOps
from rich.progress import track
from torchvision.transforms.functional import pil_to_tensor

from datamodules.base import SPLITS, ImageDataModule
from datamodules.blocks import ImageDataset
from datamodules.errors import DataError
from datamodules.memory import allocate_images

MODES = {1: "L", 3: "RGB"}
RESAMPLING = {"smooth": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # one of Pillow's others starts a program
MAX_PIXELS = 2**26  # of one image: 256 MB while it is read


class ImageFolder(ImageDataModule):
    """The images in a folder and its sub-folders, brought to one size.

    Sub-folders `train`, `val` and `test` are taken as the split; if there are only `train` and `test`, a tenth of the
    training images validates. Any other folder is split 8 : 1 : 1 by the checksums of the files' content, so that new
    names change nothing. The first folder on an image's path, below that of its split, is its label. Files without a
    suffix of an image are skipped with a warning, hidden files without one. Images that would fill more than half of
    the memory are kept in a mapped file in `data_dir`, which disappears with the process.

    Args:
        size: height and width; an image of another shape is cropped at its longer sides, then scaled.
        channels: 1 (grey) or 3 (colour); transparent pixels become white.
        resample: how images are scaled: smooth, or nearest, which adds no colour to those of pixel art.
        batch_size: images of a training step, on each device; null: 100, but at most a tenth of the training images.

    Raises:
        ValueError: an option is out of range, or no folder is given.
    """

    def __init__(
        self,
        size: tuple[int, int] = (32, 32),
        channels: Literal[1, 3] = 3,
        resample: Literal["smooth", "nearest"] = "smooth",
        batch_size: int | None = None,
        **kwargs,
    ):
        super().__init__(batch_size=batch_size, **kwargs)
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"size: expected a height and a width of at least 1, as in [32,32]; got {list(size)}")
        if channels not in MODES:
            raise ValueError(f"channels: expected 1 (grey) or 3 (colour), got {channels}")
        if resample not in RESAMPLING:
            raise ValueError(f"resample: expected smooth or nearest, got {resample}")
        if self.hparams.data_dir is None:
            raise ValueError("ImageFolder needs the folder of your images: --data.data_dir FOLDER")
        self.image_shape = (channels, *size)
        self.name = self.data_dir.name

    def load(self) -> dict[str, ImageDataset]:
        if not self.data_dir.is_dir():
            raise DataError(f"data_dir: there is no folder {self.data_dir}; expected the folder of your images.")
        files = [path.relative_to(self.data_dir) for path in self.data_dir.rglob("*") if path.is_file()]
        files = [path for path in files if not any(part.startswith(".") for part in path.parts)]
        suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
        paths = [path for path in files if path.suffix.lower() in suffixes]
        if len(paths) < 3:
            raise DataError(f"{self.data_dir} holds {len(paths)} images: a split into three needs at least 3.")
        paths.sort(key=lambda path: (self.checksum(path), path))
        given = is_split(paths)
        parts = given_split(paths) if given else random_split(paths)
        ordered = [path for part in parts for path in part]
        if skipped := len(files) - len(ordered):
            outside = ", or outside of train, val and test" if given else ""
            warnings.warn(
                f"{self.data_dir}: skipped {skipped} files, not images by their suffix{outside}.", stacklevel=1
            )
        images = allocate_images((len(ordered), *self.image_shape), self.data_dir)
        for place, path in enumerate(track(ordered, "Reading images", transient=True)):
            images[place] = self.read(self.data_dir / path)
        labels = self.label([Path(*path.parts[1:]) if given else path for path in ordered])
        cuts = [len(part) for part in parts]
        split_labels = [None] * 3 if labels is None else labels.split(cuts)
        return dict(zip(SPLITS, map(ImageDataset, images.split(cuts), split_labels), strict=True))

    def checksum(self, path: Path) -> bytes:
        """The SHA-256 of a file's content."""
        with (self.data_dir / path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    def read(self, path: Path) -> torch.Tensor:
        """One image, uint8 [C, H, W]."""
        channels, height, width = self.image_shape
        try:
            with Image.open(path, formats=FORMATS) as image:
                if prod(image.size) > MAX_PIXELS:
                    raise DataError(f"{path} has {' x '.join(map(str, image.size))} pixels, too many: scale it down.")
                mode = image.mode
                image = ImageOps.exif_transpose(image).convert("RGBA")
        except DataError:
            raise
        except Exception as error:  # each format's reader has errors of its own
            raise DataError(f"{path} cannot be read as an image: repair it, or move it out of the folder.") from error
        if mode.startswith(("I", "F")):
            raise DataError(f"{path} has pixels of 16 bits or more: save it with 8 bits.")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert(MODES[channels])
        return pil_to_tensor(ImageOps.fit(image, (width, height), RESAMPLING[self.hparams.resample]))

    def label(self, paths: list[Path]) -> torch.Tensor | None:
        """Each image's class [N], in the order of the sub-folders' names; None if there are no sub-folders."""
        folders = [path.parts[0] if len(path.parts) > 1 else "" for path in paths]
        classes = {name: place for place, name in enumerate(sorted(set(folders)))}
        if len(classes) == 1 and "" in classes:
            return None
        self.classes = tuple(name or "no folder" for name in classes)
        return torch.tensor([classes[folder] for folder in folders])


def is_split(paths: list[Path]) -> bool:
    """Whether there are images in a sub-folder `train` and in `val` or `test`."""
    folders = {path.parts[0] for path in paths if len(path.parts) > 1}
    return "train" in folders and not folders.isdisjoint({"val", "test"})


def given_split(paths: list[Path]) -> list[list[Path]]:
    """The images of the sub-folders `train`, `val` and `test`; without `val` a tenth of the training images."""
    train, val, test = ([path for path in paths if path.parts[0] == split] for split in SPLITS)
    held_out = 0 if val else max(1, len(train) // 10)
    return [train[held_out:], val or train[:held_out], test]


def random_split(paths: list[Path]) -> list[list[Path]]:
    """Eight images in ten, one, and one: `paths` are sorted by checksum, which is as good as shuffled."""
    held_out = max(1, len(paths) // 10)
    return [paths[: -2 * held_out], paths[-2 * held_out : -held_out], paths[-held_out:]]
