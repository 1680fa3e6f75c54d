"""MNIST: splits and binarisation, on four tiny files made here, and on the real ones where they are at hand."""

from types import SimpleNamespace

import pytest
import torch
from common_fixtures import REAL_DATA
from helpers import SPLITS, ready

from datamodules import MNIST
from datamodules.binarization import draw_binary, random_bytes
from datamodules.blocks import ImageDataset


def received(data, epoch=0, block=0, training=True):
    """A block of training images as a step receives it."""
    progress = SimpleNamespace(batch_idx=block - 1)  # the Trainer counts a block after its transfer
    data.trainer = SimpleNamespace(training=training, current_epoch=epoch, fit_loop=progress, global_rank=0)
    batch = data.splits["train"].__getitems__([torch.arange(4), torch.arange(4, 8)])
    return data.on_after_batch_transfer(batch, 0).images


def test_mnist_holds_out_the_end_of_the_training_set(tiny_mnist):
    splits = ready(MNIST(val_size=20, binarize="none")).splits
    assert [len(splits[name]) for name in SPLITS] == [40, 20, 20]
    assert splits["train"].images[:, 0, 27, 27].tolist() == list(range(40))
    assert splits["val"].images[:, 0, 27, 27].tolist() == list(range(40, 60))
    assert splits["val"].labels.tolist() == [i % 10 for i in range(40, 60)]
    everything = ready(MNIST(val_size=0))
    assert len(everything.splits["train"]) == 60
    assert list(everything.val_dataloader()) == []


def test_dynamic_binarisation_is_drawn_anew_in_training_and_once_elsewhere(tiny_mnist):
    data = ready(MNIST(val_size=20))
    images = [received(data, epoch, block) for epoch, block in ((0, 0), (0, 1), (1, 0))]
    for image in images:
        assert set(image.unique().tolist()) == {0.0, 1.0}
        assert image[:, :, 0].max() == 0  # black stays black
        assert image[:, :, 1].min() == 1  # white stays white
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    assert torch.equal(images[2], received(ready(MNIST(val_size=20)), 1, 0))
    assert not torch.equal(images[0], received(ready(MNIST(val_size=20, seed=1)), 0, 0))
    for split in ("val", "test"):
        assert set(data.splits[split].images.unique().tolist()) == {0, 255}
        assert data.splits[split].images[:, :, 2:26].float().mean() / 255 == pytest.approx(0.2, abs=0.02)
        assert torch.equal(data.splits[split].images, ready(MNIST(val_size=20, seed=1)).splits[split].images)


def test_each_split_is_binarised_once_by_draws_of_its_own(tiny_mnist, monkeypatch):
    """Which do not depend on how many images there are: at equal places two splits are as unrelated as any pixels."""
    monkeypatch.setattr(MNIST, "num_train", 900)
    grey = ImageDataset(torch.full((900, 1, 28, 28), 51, dtype=torch.uint8))
    whole = MNIST(val_size=300, binarize="fixed").split(grey, ImageDataset(grey.images[:300]))
    drawn = torch.stack([whole[split].images[:300].flatten() for split in SPLITS]).double()
    assert set(drawn.unique().tolist()) == {0, 255}
    assert drawn.mean().item() / 255 == pytest.approx(0.2, abs=0.002)
    correlations = torch.corrcoef(drawn).fill_diagonal_(0) * drawn.shape[1] ** 0.5
    assert correlations.abs().max() < 4.5
    fewer = MNIST(val_size=100, binarize="fixed").split(grey, ImageDataset(grey.images[:5]))
    for split in SPLITS:
        n = min(len(whole[split]), len(fewer[split]))
        assert torch.equal(whole[split].images[:n], fewer[split].images[:n])
    data = ready(MNIST(val_size=20))
    assert torch.equal(data.images("train", 3), data.images("train")[:3])
    assert torch.equal(data.images("all")[40:60] * 255, data.splits["val"].images.float())


def test_evaluation_images_are_not_drawn_again(tiny_mnist):
    data = ready(MNIST(val_size=20))
    assert torch.equal(received(data, training=False), data.splits["train"].images[:8] / 255)


def test_noise_has_255_outcomes_of_equal_probability():
    noise = random_bytes(torch.Size([5_100, 1_001]), torch.device("cpu"), seed=3)  # an odd number: not all whole draws
    counts = noise.flatten().bincount(minlength=256).double()
    assert counts[255] == 0
    expected = noise.numel() / 255
    chi_squared = ((counts[:255] - expected) ** 2 / expected).sum()
    assert 160 < chi_squared < 370  # 254 degrees of freedom: 254 +- 5 * 22.5
    pairs = torch.corrcoef(noise[:, 500:510].T.double())  # neighbours are cut from one draw
    assert (pairs - torch.eye(10)).abs().max() < 0.07


def test_pixels_are_drawn_with_the_probability_of_their_grey():
    grey = torch.arange(256, dtype=torch.uint8).repeat(20_000, 1)
    drawn = draw_binary(grey, 0, torch.empty(grey.shape)).double()
    p = torch.arange(256) / 255
    assert torch.all((drawn.mean(0) - p).abs() <= 4.5 * (p * (1 - p) / 20_000).sqrt())
    assert torch.equal(drawn, draw_binary(grey, 0, torch.empty(grey.shape)).double())


def test_black_and_white_never_change():
    """In 4 million pixels of each: one in 65,536 of the white ones must not turn black."""
    for value in (0, 255):
        grey = torch.full((4_000_000,), value, dtype=torch.uint8)
        assert draw_binary(grey, value, torch.empty(grey.shape)).unique().tolist() == [value / 255]


def test_threshold_and_none(tiny_mnist):
    data = ready(MNIST(val_size=20, binarize="threshold"))
    for split in SPLITS:
        assert set(data.splits[split].images.unique().tolist()) == {0, 255}
        assert data.splits[split].images[:, :, 2:26].max() == 0  # a fifth is less than a half
    assert received(ready(MNIST(val_size=20, binarize="none")))[0, 0, 5, 5] == pytest.approx(51 / 255)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_size": 60_000}, "val_size: expected 0 to 59,999 of the 60,000 training images, got 60000"),
        ({"val_size": -1}, "val_size: expected 0 to 59,999"),
        ({"val_size": "5"}, "val_size: expected 0 to 59,999 .*, got '5'"),
        ({"val_size": 5.0}, r"val_size: expected 0 to 59,999 .*, got 5\.0"),
        ({"binarize": "maybe"}, "unknown binarize 'maybe': choose one of dynamic, fixed, threshold, none"),
    ],
)
def test_mnist_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        MNIST(**options)


@pytest.mark.real_data
def test_real_mnist():
    data = ready(MNIST(data_dir=str(REAL_DATA), binarize="none"))
    assert [len(data.splits[name]) for name in SPLITS] == [50_000, 10_000, 10_000]
    assert data.splits["test"].labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    images = torch.cat([data.splits["train"].images, data.splits["val"].images])
    assert images.float().mean().item() / 255 == pytest.approx(0.1307, abs=1e-4)  # the well-known mean
