"""ImageFolder: a folder of the user's own images."""

import hashlib
import re
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from math import prod
from pathlib import Path
from typing import Literal

import torch
from PIL import Image, ImageOps
from rich.progress import track
from torchvision.transforms.functional import pil_to_tensor

from datamodules.base import SPLITS, ImageDataModule
from datamodules.blocks import ImageDataset
from datamodules.errors import DataError, DataWarning, as_utf8
from datamodules.memory import allocate_images

MODES = {1: "L", 3: "RGB"}
RESAMPLING = {"smooth": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # one of Pillow's others starts a program
MAX_PIXELS = 2**26  # of one image, in its file or in the data set: 256 MB while it is read
REDUCING_GAP = 3  # a JPEG is decoded at this multiple of the size at least: Pillow's value for no visible loss
MAX_NAME_BYTES = 100  # of the data set: it becomes part of file names, which end at 255
MAX_NAMED = 5  # folders in a message
SPELLINGS = {
    spelling: split
    for split, spellings in (
        ("train", "train training"),
        ("val", "val valid validate validation dev eval evaluation"),
        ("test", "test testing"),
    )
    for spelling in spellings.split()
}
ABBREVIATIONS = {  # the first two letters, or the consonants
    short: split for spelling, split in SPELLINGS.items() for short in (spelling[:2], re.sub("[aeiou]", "", spelling))
}
SPELLED = re.compile("|".join(sorted(SPELLINGS, key=len, reverse=True)))
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class ImageFolder(ImageDataModule):
    """The images in a folder and its sub-folders, brought to one size.

    Sub-folders `train`, `val` and `test`, in other usual spellings too (`Training`, `valid`), are taken as the split,
    also inside a single folder that holds all images; if there are only `train` and `test`, a tenth of the training
    images validates, of a single one none. Any other folder is split 8 : 1 : 1 by the checksums of the files' content,
    so that new names change nothing; copies of an image come into one split. The first folder on an image's path, below
    that of its split, is its label. Links are followed. Files without a suffix of an image are skipped with a warning,
    hidden files without one. Images that would fill more than half of the memory are kept in a mapped file in
    `data_dir`, which disappears with the process.

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
        sides = [*size] if isinstance(size, tuple | list) else []
        if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides) or prod(sides) > MAX_PIXELS:
            raise ValueError(
                "size: expected a height and a width of at least 1, as in [32,32], and at most "
                f"{MAX_PIXELS:,} pixels; got {size}"
            )
        if channels not in MODES:
            raise ValueError(f"channels: expected 1 (grey) or 3 (colour), got {channels}")
        if resample not in RESAMPLING:
            raise ValueError(f"resample: expected smooth or nearest, got {resample}")
        if self.hparams.data_dir is None:
            raise ValueError("ImageFolder needs the folder of your images: --data.data_dir FOLDER")
        self.image_shape = (channels, *size)
        self.name = printable(self.data_dir.name).encode()[:MAX_NAME_BYTES].decode(errors="ignore")

    def load(self) -> dict[str, ImageDataset]:
        if not self.data_dir.is_dir():
            raise DataError(f"data_dir: there is no folder {self.data_dir}; expected the folder of your images.")
        suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
        try:
            files = [path.relative_to(self.data_dir) for path in find_files(self.data_dir)]
            paths = [path for path in files if path.suffix.lower() in suffixes]
            folders = find_split(paths)
            checksums = {path: self.checksum(path) for path in paths}
        except OSError as error:
            raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from error
        except AmbiguousSplit as error:
            raise DataError(f"{self.data_dir}: {error}") from None
        copies = [[*same] for _, same in groupby(sorted(paths, key=lambda p: (checksums[p], p)), checksums.get)]
        if len(copies) < 3 and not folders:
            apart = " apart from copies" if len(copies) < len(paths) else ""
            raise DataError(f"{self.data_dir} holds {len(copies)} images{apart}: a split into three needs at least 3.")
        parts = given_split(copies, folders) if folders else random_split(copies)
        ordered = [path for part in parts for path in part]
        if skipped := len(files) - len(ordered):
            outside = f", or outside of {', '.join(map(printable, map(str, folders.values())))}" if folders else ""
            warnings.warn(
                f"{self.data_dir}: skipped {skipped} files, not images by their suffix{outside}.",
                DataWarning,
                stacklevel=1,
            )
        images = allocate_images((len(ordered), *self.image_shape), self.data_dir)
        for place, path in enumerate(track(ordered, "Reading images", transient=True)):
            images[place] = self.read(self.data_dir / path)
        depth = len(folders["train"].parts) if folders else 0
        labels = self.label([Path(*path.parts[depth:]) for path in ordered])
        cuts = [len(part) for part in parts]
        keys = torch.tensor([int.from_bytes(checksums[path][:8], signed=True) for path in ordered], dtype=torch.int64)
        split_labels = [None] * 3 if labels is None else labels.split(cuts)
        return dict(zip(SPLITS, map(ImageDataset, images.split(cuts), split_labels, keys.split(cuts)), strict=True))

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
                    raise Image.DecompressionBombError
                mode = image.mode
                if self.hparams.resample == "smooth":  # a reduced JPEG averages; both sides, as EXIF data may turn it
                    image.draft(None, (REDUCING_GAP * max(height, width),) * 2)
                image = ImageOps.exif_transpose(image).convert("RGBA")
        except Image.DecompressionBombError as error:  # Pillow's own comes before the size is known
            raise DataError(f"{path} has too many pixels, more than {MAX_PIXELS:,}: scale it down.") from error
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
        names: dict[str, str] = {}
        for folder in reversed(classes):  # images in no folder, "", come last: the name of a folder stays as it is
            name = printable(folder) or "no folder"
            while name in names:
                name = f"({name})"
            names[name] = folder
        self.classes = tuple(reversed(names))
        return torch.tensor([classes[folder] for folder in folders])


class AmbiguousSplit(Exception):
    """Folders are named like splits, but they are none; the message says what was expected."""

    def __init__(self, folders: Iterable[Path]):
        named = [printable(str(folder)) for folder in sorted(folders)]
        more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
        super().__init__(
            f"cannot tell the split from folders of these names: {', '.join(named[:MAX_NAMED])}{more}.\n"
            "Expected train and val or test, each once and side by side, here or in a single folder that holds all "
            "images.\nRename or move them; a class that is no split needs a name unlike that of one."
        )


def printable(name: str) -> str:
    """A file's name as text: bytes that are no UTF-8, and control characters, are escaped."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), as_utf8(name))


def find_files(folder: Path, around: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All files in a folder and those below, but hidden ones. Links are followed, unless to a folder around them."""
    around = (*around, folder.resolve())
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if path.resolve() not in around:
                yield from find_files(path, around)
        elif path.is_file() or not path.exists():  # a broken link fails when it is opened; a pipe would not end
            yield path


def named_splits(folder: Path) -> set[str]:
    """The splits of which a folder's name has a word: train of `train`, `train2017`, `TrainSet` or `bullet train`."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", folder.name).lower())
    words += [word.removesuffix("set").removesuffix("data") for word in words]
    return {SPELLINGS[word] for word in words if word in SPELLINGS}


def alike_but_for_split(folders: Iterable[Path]) -> set[Path]:
    """Folders side by side whose names differ in the split alone: `Xtrain` and `Xtest`, or `tr` and `te` by themselves.

    That a name contains a split's says nothing: of classes `contest` and `festival` do.
    """
    folders = [*folders]
    neighbours: dict[tuple[Path, str], dict[str, Path]] = {}
    for folder in folders:
        name = folder.name.lower()
        for found in SPELLED.finditer(name):
            rest = f"{name[: found.start()]}/{name[found.end() :]}"
            neighbours.setdefault((folder.parent, rest), {})[SPELLINGS[found[0]]] = folder
    for parent in {folder.parent for folder in folders}:
        beside = [folder for folder in folders if folder.parent == parent]
        if all(folder.name.lower() in ABBREVIATIONS for folder in beside):
            neighbours[parent, ""] = {ABBREVIATIONS[folder.name.lower()]: folder for folder in beside}
    return {folder for alike in neighbours.values() if "train" in alike and len(alike) > 1 for folder in alike.values()}


def find_split(paths: Iterable[Path]) -> dict[str, Path]:
    """The folders of the splits by name, `train` and `val` or `test`; empty if no folder is named like one.

    Raises:
        AmbiguousSplit: folders are named like splits, but in other places, or it is not clear which is which.
    """
    paths = [*paths]
    folders = {folder for path in paths for folder in path.parents if folder.name}
    spelled = {folder for folder in folders if folder.name.lower() in SPELLINGS}
    splits = {SPELLINGS[folder.name.lower()]: folder for folder in spelled}
    others = {folder for folder in folders - spelled if named_splits(folder)}
    if not spelled:
        if len({split for folder in others for split in named_splits(folder)}) < 2:
            others = alike_but_for_split(folders)
        if others:
            raise AmbiguousSplit(others)
        return {}
    (parent, *elsewhere) = {folder.parent for folder in spelled}
    beside = {folder for folder in others if folder.parent == parent}
    is_clear = not elsewhere and not beside and len(splits) == len(spelled) > 1 and "train" in splits
    if not (is_clear and all(path.is_relative_to(parent) for path in paths)):
        raise AmbiguousSplit(spelled | beside)
    return {split: splits[split] for split in SPLITS if split in splits}


def given_split(copies: list[list[Path]], folders: dict[str, Path]) -> list[list[Path]]:
    """The images in the folders of the splits; without `val` a tenth of the training images validates."""
    train, val, test = (
        [[path for path in same if split in folders and path.is_relative_to(folders[split])] for same in copies]
        for split in SPLITS
    )
    if "val" not in folders:
        train = [same for same in train if same]
        held_out = min(max(1, len(train) // 10), len(train) - 1)  # one image is trained on
        train, val = train[held_out:], train[:held_out]
    return [[*chain(*part)] for part in (train, val, test)]


def random_split(copies: list[list[Path]]) -> list[list[Path]]:
    """Eight images in ten, one, and one: `copies`, of one image each, are sorted by checksum: as good as shuffled."""
    held_out = max(1, len(copies) // 10)
    parts = copies[: -2 * held_out], copies[-2 * held_out : -held_out], copies[-held_out:]
    return [[*chain(*part)] for part in parts]
