"""Frey Face: 1,965 frames of a film of one face, as Sam Roweis' page has them; the paper's second data set.

No licence is known: the frames are downloaded and verified here, never shipped.
"""

from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor
from torch.hub import download_url_to_file

from datamodules.base import SPLITS, ImageDataModule
from datamodules.blocks import ImageDataset
from datamodules.downloads import REMEDY, fetching
from datamodules.errors import DataError


class FreyFace(ImageDataModule):
    """1,965 grey frames of 28 x 20; 1,565 / 200 / 200, drawn at random, the same each time.

    Neighbours in time are nearly equal and in all splits: the test says little of other faces. The paper names no
    split; these sizes are those that others use.
    """

    name = "frey_face"
    image_shape = (1, 28, 20)
    file_name = "frey_rawface.mat"
    url = "https://cs.nyu.edu/~roweis/data/frey_rawface.mat"
    sha256 = "2438ba4f0d2a6bd8bac43de756141eaa33c8d248dd613d464bdb1210d9b7af78"  # of the pixels: the file has a date
    cuts = (1_565, 200, 200)

    def fetch(self) -> None:
        if not (self.data_dir / self.file_name).is_file():
            self.download()
        self.frames()

    def download(self) -> None:
        """Download into a temporary folder inside `data_dir`, and move the file once its pixels are the right ones."""
        with (
            fetching(self.file_name, self.url, [self.file_name], self.data_dir),
            TemporaryDirectory(prefix=".download-", dir=self.data_dir, ignore_cleanup_errors=True) as folder,
        ):
            path = Path(folder) / self.file_name
            download_url_to_file(self.url, str(path))
            self.read(path)
            path.replace(self.data_dir / self.file_name)

    def read(self, path: Path) -> Tensor:
        """The frames of a file: uint8 [N, 1, 28, 20].

        Raises:
            ValueError: their checksum is another one; other exceptions if the file cannot be read at all.
        """
        from scipy.io import loadmat  # here: the import is slow, and other data sets do not need it

        pixels = np.ascontiguousarray(loadmat(path, variable_names=["ff"])["ff"].T)  # [N, 560]
        if (found := sha256(pixels.tobytes()).hexdigest()) != self.sha256:
            raise ValueError(f"expected pixels of SHA-256 {self.sha256}, found {found}")
        return torch.from_numpy(pixels).view(-1, *self.image_shape)

    def frames(self) -> Tensor:
        """All frames in the order of time: uint8 [N, 1, 28, 20].

        Raises:
            DataError: the file is missing, damaged or another one.
        """
        path = self.data_dir / self.file_name
        try:
            return self.read(path)
        except Exception as error:  # whatever the bytes of a damaged file make of scipy's reader
            raise DataError(f"{path} cannot be read: {error}.\n{REMEDY}") from error

    def load(self) -> dict[str, ImageDataset]:
        frames = self.frames()
        order = np.random.RandomState(0).permutation(len(frames))  # NumPy keeps this generator as it is
        shuffled = frames[torch.from_numpy(order)]
        return dict(zip(SPLITS, map(ImageDataset, shuffled.split(list(self.cuts))), strict=True))
