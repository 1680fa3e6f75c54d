"""ImageFolder: a folder of the user's own images."""

import hashlib
import os
from math import prod
from pathlib import Path

import torch
from PIL import Image, ImageOps
from rich.progress import track
from torchvision.transforms.functional import pil_to_tensor

from datamodules.base import DataError, ImageDataModule, ImageDataset, allocate_images

MODES = {1: "L", 3: "RGB"}
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # one of Pillow's others starts a program
MAX_PIXELS = 2**26  # of one image: 256 MB while it is read


class ImageFolder(ImageDataModule):
    """The images in `data_dir` and below, brought to one size; eight in ten train, one validates, one tests.

    The split goes by the file names' checksums, so it is the same on every machine. Where there are sub-folders, the
    first one on an image's path is its label. Hidden files are passed over. Images that would fill more than half of
    the memory are kept in a file beside them, which vanishes with the process.

    Args:
        size: height and width; an image of another shape is cut at its longer sides, then scaled.
        channels: 1 (grey) or 3 (colour); transparent pixels are put on white.

    Raises:
        ValueError: an option that is out of range, or no folder is named.
    """

    def __init__(self, size: tuple[int, int] = (32, 32), channels: int = 3, **kwargs):
        super().__init__(**kwargs)
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"size: expected a height and a width of at least 1, as in [32,32]; got {list(size)}")
        if channels not in MODES:
            raise ValueError(f"channels: expected 1 (grey) or 3 (colour), got {channels}")
        if self.hparams.data_dir is None:
            raise ValueError("ImageFolder needs the folder of your images: --data.data_dir FOLDER")
        self.image_shape = (channels, *size)
        self.name = self.data_dir.resolve().name

    def load(self) -> dict[str, ImageDataset]:
        if not self.data_dir.is_dir():
            raise DataError(f"There is no folder {self.data_dir}: name one that holds images, --data.data_dir FOLDER")
        paths = [path.relative_to(self.data_dir) for path in self.data_dir.rglob("*") if path.is_file()]
        paths = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
        if len(paths) < 3:
            raise DataError(f"{self.data_dir} holds {len(paths)} images: a split into three needs at least 3.")
        paths.sort(key=lambda path: hashlib.sha256(os.fsencode(path.as_posix())).digest())
        images = allocate_images((len(paths), *self.image_shape), self.data_dir)
        for place, path in enumerate(track(paths, "Reading images", transient=True)):
            images[place] = self.read(self.data_dir / path)
        labels = self.label(paths)
        held_out = max(1, len(paths) // 10)
        cuts = [len(paths) - 2 * held_out, held_out, held_out]
        split_labels = [None] * 3 if labels is None else labels.split(cuts)
        return dict(zip(("train", "val", "test"), map(ImageDataset, images.split(cuts), split_labels), strict=True))

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
            raise DataError(f"{path} cannot be read as an image: mend it, or move it out of the folder.") from error
        if mode.startswith(("I", "F")):
            raise DataError(f"{path} has pixels of 16 bits or more: save it with 8 bits.")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert(MODES[channels])
        return pil_to_tensor(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))

    def label(self, paths: list[Path]) -> torch.Tensor | None:
        """Each image's class [N], by the order of the sub-folders' names; None where there are none."""
        folders = [path.parts[0] if len(path.parts) > 1 else "" for path in paths]
        classes = {name: place for place, name in enumerate(sorted(set(folders)))}
        if len(classes) == 1 and "" in classes:
            return None
        self.classes = tuple(name or "no folder" for name in classes)
        return torch.tensor([classes[folder] for folder in folders])
