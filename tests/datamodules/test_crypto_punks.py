"""CryptoPunks: cut from a tiny sheet that is painted here, and from the real one where it is at hand."""

import numpy as np
import pytest
import torch
from common_fixtures import REAL_DATA
from helpers import SPLITS, ready
from PIL import Image

from datamodules import CryptoPunks, DataError


def test_punks_are_cut_row_by_row_in_the_sheets_order(tiny_punks):
    splits = ready(CryptoPunks()).splits
    assert [len(splits[name]) for name in SPLITS] == [12, 4, 4]
    punks = torch.cat([splits[name].images for name in SPLITS])
    assert punks.shape == (20, 3, 24, 24)
    assert punks.dtype == torch.uint8
    colours = torch.tensor([[10 * i, i, 0] for i in range(20)], dtype=torch.uint8)
    assert torch.equal(punks[:, :, 2:, 2:], colours[:, :, None, None].expand(-1, -1, 22, 22))


@pytest.mark.parametrize(
    ("background", "clear", "half"),
    [
        ("marketplace", (0x63, 0x85, 0x96), (0x31, 0x42, 0x4B)),
        ("black", (0, 0, 0), (0, 0, 0)),
        ("white", (255, 255, 255), (127, 127, 127)),
        ("red", (255, 0, 0), (127, 0, 0)),
    ],
)
def test_transparent_pixels_show_the_background(tiny_punks, background, clear, half):
    punk = ready(CryptoPunks(background)).splits["test"].images[3]
    assert tuple(punk[:, 0, 0].tolist()) == clear
    assert np.abs(punk[:, 0, 1].numpy().astype(int) - half).max() <= 1


@pytest.mark.parametrize("background", ["no colour", "", None])
def test_a_background_that_is_no_colour(background):
    with pytest.raises(ValueError, match="background: expected marketplace, black, white or another colour name, got"):
        CryptoPunks(background)


def test_a_sheet_of_the_wrong_size(tiny_punks):
    Image.new("RGBA", (48, 24)).save(tiny_punks / "punks.png")
    with pytest.raises(DataError, match=r"punks.png is 48 x 24 pixels; the sheet is 96 x 120"):
        CryptoPunks().prepare_data()


@pytest.mark.real_data
def test_real_punks():
    data = ready(CryptoPunks(data_dir=str(REAL_DATA)))
    splits = data.splits
    assert [len(splits[name]) for name in SPLITS] == [6_000, 2_000, 2_000]
    train, test = ({punk.numpy().tobytes() for punk in splits[name].images} for name in ("train", "test"))
    assert not train & test
    red, green, blue = splits["train"].images.int().unbind(1)
    colours = (red << 16 | green << 8 | blue).unique().tolist()
    assert len(colours) == 214
    assert sorted(data.palette()) == [(colour >> 16, colour >> 8 & 255, colour & 255) for colour in colours]
    everything = torch.cat([splits[name].images for name in SPLITS])
    assert len({punk.numpy().tobytes() for punk in everything}) == 10_000
