"""FreyFace: from a tiny file that is made here, and from the real one where it is at hand."""

import numpy as np
import pytest
import torch
from common_fixtures import REAL_DATA
from helpers import SPLITS, ready
from scipy.io import savemat

from datamodules import DataError, FreyFace


def test_frames_are_split_at_random_and_the_same_each_time(tiny_faces):
    data, again = ready(FreyFace()), ready(FreyFace(seed=7))
    images = {split: data.splits[split].images for split in SPLITS}
    assert [len(images[split]) for split in SPLITS] == [12, 4, 4]
    assert all(torch.equal(images[split], again.splits[split].images) for split in SPLITS)
    frames = data.frames()
    assert frames.shape == (20, 1, 28, 20)
    painted = np.random.default_rng(0).integers(256, size=(20, 560), dtype=np.uint8)
    assert torch.equal(frames.flatten(1), torch.from_numpy(painted))
    shuffled = torch.cat([*images.values()])
    assert sorted(map(bytes, shuffled.flatten(1).numpy())) == sorted(map(bytes, frames.flatten(1).numpy()))
    assert not torch.equal(shuffled, frames)


@pytest.mark.parametrize("change", ["truncated", "altered", "another", "empty", "no MATLAB"])
def test_a_file_that_is_not_the_published_one(tiny_faces, change):
    path = tiny_faces / "frey_rawface.mat"
    content = path.read_bytes()
    if change == "another":
        savemat(path, {"faces": np.zeros((560, 20))})
    elif change == "altered":
        savemat(path, {"ff": np.zeros((560, 20), np.uint8)})
    else:
        path.write_bytes({"truncated": content[:-50], "empty": b"", "no MATLAB": b"x" * 999}[change])
    with pytest.raises(DataError, match=r"frey_rawface.mat cannot be read: .*\nDelete it to have it downloaded again"):
        FreyFace().prepare_data()


@pytest.mark.skipif(not (REAL_DATA / "frey_rawface.mat").is_file(), reason="the real frames are not in $VAE_DATA_DIR")
def test_real_frames():
    data = ready(FreyFace(data_dir=str(REAL_DATA)))
    assert [len(data.splits[split]) for split in SPLITS] == [1_565, 200, 200]
    frames = data.frames().float()
    steps = (frames[1:] - frames[:-1]).square().mean()
    assert steps < 0.5 * (frames[1:] - frames.flip(0)[:-1]).square().mean()  # in the order of time
    assert frames.diff(dim=2).square().mean() < 0.3 * frames[..., ::4, :].diff(dim=2).square().mean()  # rows in place
