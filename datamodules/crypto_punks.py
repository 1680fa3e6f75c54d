"""CryptoPunks: the sheet of 10,000 punks, as larvalabs/cryptopunks publishes it.

The artwork is its owners'; it is downloaded and verified here, never shipped.
"""

from pathlib import Path

from PIL import Image, ImageColor
from torch.hub import download_url_to_file
from torchvision.transforms.functional import pil_to_tensor

from datamodules.base import SPLITS, ImageDataModule
from datamodules.blocks import ImageDataset
from datamodules.downloads import REMEDY, fetching, verify
from datamodules.errors import DataError


class CryptoPunks(ImageDataModule):
    """10,000 punks of 24 x 24, in colour: 1 to 6,000 / 6,001 to 8,000 / 8,001 to 10,000, in the sheet's order.

    Args:
        background: the colour under the transparent pixels: marketplace (#638596), black, white or any colour name.
            If the alpha channel were dropped, 50 punks with black outlines would equal another.

    Raises:
        ValueError: `background` is no colour.
    """

    name = "punks"
    image_shape = (3, 24, 24)
    file_name = "punks.png"
    url = "https://raw.githubusercontent.com/larvalabs/cryptopunks/master/punks.png"
    sha256 = "ac39af4793119ee46bbff351d8cb6b5f23da60222126add4268e261199a2921b"  # `imageHash` of the contract
    grid = (100, 100)  # rows, columns
    cuts = (6_000, 2_000, 2_000)

    def __init__(self, background: str = "marketplace", **kwargs):
        super().__init__(**kwargs)
        try:
            self.colour = ImageColor.getrgb("#638596" if background == "marketplace" else background)
        except (ValueError, TypeError):  # None: in YAML, #000000 is a comment
            raise ValueError(
                f"background: expected marketplace, black, white or another colour name, got {background!r}"
            ) from None

    def fetch(self) -> None:
        path = self.data_dir / self.file_name
        if not path.is_file():
            self.download(path)
        try:
            verify(path, self.sha256)
        except DataError:
            self.check_size(path)
            raise

    def check_size(self, path: Path) -> None:
        """Check the size of a sheet that is not the published one: a clearer message than the checksum's.

        Raises:
            DataError: the size is wrong.
        """
        (rows, columns), (_, height, width) = self.grid, self.image_shape
        expected = (columns * width, rows * height)
        try:
            with Image.open(path) as sheet:
                size = sheet.size
        except Exception:  # not an image: the checksum's message stands
            return
        if size != expected:
            raise DataError(
                f"{path} is {size[0]} x {size[1]} pixels; the sheet is {expected[0]} x {expected[1]}.\n{REMEDY}"
            )

    def download(self, path: Path) -> None:
        """Download the sheet under a temporary name; it gets its own once its checksum is right."""
        with fetching(path.name, self.url, [path.name], path.parent):
            download_url_to_file(self.url, str(path), hash_prefix=self.sha256)

    def load(self) -> dict[str, ImageDataset]:
        with Image.open(self.data_dir / self.file_name) as sheet:
            sheet = sheet.convert("RGBA")
        opaque = Image.alpha_composite(Image.new("RGBA", sheet.size, self.colour), sheet).convert("RGB")
        (rows, columns), (channels, height, width) = self.grid, self.image_shape
        tiles = pil_to_tensor(opaque).reshape(channels, rows, height, columns, width)
        punks = tiles.permute(1, 3, 0, 2, 4).reshape(-1, *self.image_shape)  # row by row
        return dict(zip(SPLITS, map(ImageDataset, punks.split(list(self.cuts))), strict=True))
