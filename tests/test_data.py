"""How each data set is found, verified and cut, on tiny data made here, and on the real data where it is at hand."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import REAL_DATA
from PIL import Image
from sklearn.datasets import load_digits

from datamodules import MNIST, CryptoPunks, DataError, Digits, ImageFolder
from datamodules.mnist import draw_binary

SPLITS = ("train", "val", "test")


def ready(data):
    data.prepare_data()
    data.setup()
    return data


def received(data, epoch=0, batch_idx=0, training=True):
    """A batch of training images as a step receives it."""
    progress = SimpleNamespace(batch_idx=batch_idx - 1)  # the Trainer counts a batch after its transfer
    data.trainer = SimpleNamespace(training=training, current_epoch=epoch, fit_loop=progress, global_rank=0)
    batch = data.splits["train"].__getitems__(torch.arange(8))
    return data.on_after_batch_transfer(batch, 0).images


def order(data, epoch):
    loader = data.train_dataloader()
    loader.batch_sampler.set_epoch(epoch)
    return torch.cat([batch.index for batch in loader]).tolist()


def test_every_picture_once_in_an_order_that_seed_and_epoch_determine():
    data = ready(Digits(batch_size=100))
    assert sorted(order(data, 0)) == list(range(1_197))
    assert order(data, 3) == order(ready(Digits(batch_size=100)), 3)
    assert len({tuple(order(ready(Digits(seed=seed)), epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_batches_hold_what_their_indices_say():
    data = ready(Digits(batch_size=100))
    for loader, split in ((data.train_dataloader(), "train"), (data.val_dataloader(), "val")):
        batches = list(loader)
        assert len(batches) == len(loader) == -(-len(data.splits[split]) // 100)
        for batch in batches:
            assert torch.equal(batch.images, data.splits[split].images[batch.index])
            assert torch.equal(batch.labels, data.splits[split].labels[batch.index])
            assert batch.images.dtype == torch.uint8


def test_held_out_pictures_come_in_order():
    data = ready(Digits(batch_size=70))
    assert torch.cat([batch.index for batch in data.test_dataloader()]).tolist() == list(range(300))


def test_pictures_become_floats_on_the_device():
    data = ready(Digits())
    images = received(data)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, data.splits["train"].images[:8].float() / 255)


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
    images = [received(data, epoch, batch_idx) for epoch, batch_idx in ((0, 0), (0, 1), (1, 0))]
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


def test_evaluation_pictures_are_not_drawn_again(tiny_mnist):
    data = ready(MNIST(val_size=20))
    assert torch.equal(received(data, training=False), data.splits["train"].images[:8] / 255)


def test_pixels_are_drawn_with_the_probability_of_their_grey():
    grey = torch.arange(256, dtype=torch.uint8).repeat(20_000, 1)
    rasterize = draw_binary(grey, torch.Generator().manual_seed(0)).double()
    p = torch.arange(256) / 255
    standard_error = (p * (1 - p) / 20_000).sqrt()
    assert torch.all((rasterize.mean(0) - p).abs() <= 4.5 * standard_error + 2**-15)
    assert abs(torch.corrcoef(rasterize[:, 126:130].T)[0, 1]) < 0.03  # neighbours cut from one draw


def test_threshold_and_none(tiny_mnist):
    data = ready(MNIST(val_size=20, binarize="threshold"))
    for split in SPLITS:
        assert set(data.splits[split].images.unique().tolist()) == {0, 255}
        assert data.splits[split].images[:, :, 2:26].max() == 0  # a fifth is less than a half
    assert received(ready(MNIST(val_size=20, binarize="none")))[0, 0, 5, 5] == pytest.approx(51 / 255)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_size": 60_000}, "val_size: expected 0 to 59,999 of the 60,000 training images, got 60,000"),
        ({"val_size": -1}, "val_size: expected 0 to 59,999"),
        ({"binarize": "maybe"}, "unknown binarize 'maybe': choose one of dynamic, threshold, none"),
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, got 0"),
    ],
)
def test_mnist_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        MNIST(**options)


def test_digits_are_scikit_learns():
    splits = ready(Digits()).splits
    assert [len(splits[name]) for name in SPLITS] == [1_197, 300, 300]
    expected = load_digits()
    images = torch.cat([splits[name].images for name in SPLITS]).squeeze(1).numpy()
    np.testing.assert_allclose(images / 255, expected.images / 16, atol=0.5 / 255)
    assert torch.cat([splits[name].labels for name in SPLITS]).tolist() == expected.target.tolist()


@pytest.fixture
def album(tmp_path):
    """Thirty images of 12 x 20 pixels in two sub-folders, each of one colour."""
    for i in range(30):
        folder = tmp_path / "album" / ("cats" if i % 3 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 12), (8 * i, 0, 255)).save(folder / f"{i:02}.png")
    (tmp_path / "album" / ".hidden").write_text("not a image, and not looked at")
    return tmp_path / "album"


def test_image_folder_splits_by_name_and_labels_by_sub_folder(album):
    data = ready(ImageFolder(size=(6, 10), data_dir=str(album)))
    assert [len(data.splits[name]) for name in SPLITS] == [24, 3, 3]
    assert (data.image_shape, data.classes, data.name) == ((3, 6, 10), ("cats", "dogs"), "album")
    shades = {}
    for name in SPLITS:
        assert data.splits[name].images.shape[1:] == (3, 6, 10)
        shades[name] = data.splits[name].images[:, 0, 0, 0]
        assert (data.splits[name].labels == (shades[name] // 8 % 3 == 0)).all()  # cats 0, dogs 1
    assert sorted(torch.cat(list(shades.values())).tolist()) == [8 * i for i in range(30)]
    again = ready(ImageFolder(size=(6, 10), data_dir=str(album))).splits
    assert all(torch.equal(again[name].images, data.splits[name].images) for name in SPLITS)


def test_pictures_that_fill_the_memory_are_mapped(album, monkeypatch):
    kept = ready(ImageFolder(size=(6, 10), data_dir=str(album))).splits
    monkeypatch.setattr("os.sysconf", lambda name: 100)  # a hundred pages of a hundred bytes
    before = Path("/proc/self/maps").read_text().count(str(album.resolve()))
    mapped = ready(ImageFolder(size=(6, 10), data_dir=str(album))).splits
    assert Path("/proc/self/maps").read_text().count(str(album.resolve())) == before + 1
    assert all(torch.equal(mapped[name].images, kept[name].images) for name in SPLITS)
    assert sorted(path.name for path in album.iterdir()) == [".hidden", "cats", "dogs"]  # nothing stays behind


def test_image_folder_without_sub_folders_has_no_labels(album):
    data = ready(ImageFolder(size=(6, 10), channels=1, data_dir=str(album / "cats")))
    assert data.classes is None
    assert next(iter(data.train_dataloader())).labels is None
    assert data.splits["train"].images.shape[1:] == (1, 6, 10)


def test_image_folder_cuts_the_longer_sides_and_puts_transparent_pixels_on_white(tmp_path):
    for name in "abc":
        image = Image.new("RGBA", (30, 10), (0, 0, 0, 0))
        image.paste((255, 0, 0, 255), (10, 0, 20, 5))
        image.save(tmp_path / f"{name}.png")
    image = ready(ImageFolder(size=(10, 10), data_dir=str(tmp_path))).splits["test"].images[0]
    assert image[:, 1, 5].tolist() == [255, 0, 0]
    assert image[:, 8, 5].tolist() == [255, 255, 255]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "ImageFolder needs the folder of your images: --data.data_dir FOLDER"),
        ({"data_dir": ".", "channels": 2}, r"channels: expected 1 \(grey\) or 3 \(colour\), got 2"),
        ({"data_dir": ".", "size": (0, 5)}, r"size: expected a height and a width of at least 1"),
    ],
)
def test_image_folder_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        ImageFolder(**options)


def test_image_folder_with_a_file_that_is_no_picture(album):
    (album / "cats" / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"notes\.txt cannot be read as a image: mend it, or move it out of the folder"):
        ready(ImageFolder(data_dir=str(album)))


def test_image_folder_with_a_truncated_picture(album):
    Image.effect_noise((64, 64), 90).save(album / "cats" / "noise.png")
    whole = (album / "cats" / "noise.png").read_bytes()
    (album / "cats" / "noise.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"noise\.png cannot be read as a image"):
        ready(ImageFolder(data_dir=str(album)))


def test_pixels_of_16_bits_are_refused(album):
    Image.new("I;16", (20, 12), 40_000).save(album / "cats" / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png has pixels of 16 bits or more: save it with 8 bits"):
        ready(ImageFolder(data_dir=str(album)))


def test_the_palette_is_that_of_the_training_pictures(tiny_punks):
    palette = ready(CryptoPunks("black")).palette()
    assert sorted(palette) == sorted({(0, 0, 0)} | {(10 * i, i, 0) for i in range(12)})


def test_a_palette_of_too_many_colours(tmp_path):
    for i in range(10):
        Image.merge("RGB", [Image.effect_noise((40, 40), 99) for _ in "RGB"]).save(f"{i}.png")
    with pytest.raises(DataError, match=r"colours, of which a palette holds 1,024 at most"):
        ready(ImageFolder(size=(40, 40), data_dir=str(tmp_path))).palette()


def test_the_mean_picture_is_that_of_the_training_pictures(tiny_mnist):
    data = ready(MNIST(val_size=20, binarize="none"))
    torch.testing.assert_close(data.mean_image(), (data.splits["train"].images / 255).mean(0))


def test_an_empty_or_missing_image_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds 0 images: a split into three needs at least 3"):
        ready(ImageFolder(data_dir="empty"))
    with pytest.raises(DataError, match=r"There is no folder nowhere: name one that holds images"):
        ready(ImageFolder(data_dir="nowhere"))


def test_a_missing_file_that_cannot_be_fetched(tmp_path):
    with pytest.raises(
        DataError,
        match=r"(?s)MNIST could not be downloaded.*Put train-images.* into data/MNIST/raw, or use --data Digits",
    ):
        MNIST().prepare_data()
    with pytest.raises(
        DataError, match=r"(?s)punks.png could not be downloaded.*Put punks.png into data, or use --data Digits"
    ):
        CryptoPunks().prepare_data()
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == []


@pytest.mark.parametrize("change", ["truncated", "altered"])
def test_a_file_that_is_not_the_published_one(tiny_mnist, tiny_punks, change):
    for data, path in (
        (MNIST(), tiny_mnist / "MNIST/raw/t10k-labels-idx1-ubyte"),
        (CryptoPunks(), tiny_punks / "punks.png"),
    ):
        content = bytearray(path.read_bytes())
        content[-20] ^= 1
        path.write_bytes(content[:-10] if change == "truncated" else content)
        with pytest.raises(DataError, match=r"(?s)is truncated or altered.*Expected SHA-256 .*found .*Delete it"):
            data.prepare_data()


def test_a_sheet_of_the_wrong_size(tiny_punks):
    Image.new("RGBA", (48, 24)).save(tiny_punks / "punks.png")
    with pytest.raises(DataError, match=r"punks.png is 48 x 24 pixels; the sheet is 96 x 120"):
        CryptoPunks().prepare_data()


@pytest.mark.parametrize(
    "data", [Digits(batch_size=7), CryptoPunks("black", data_dir="here"), MNIST(val_size=5, seed=3)]
)
def test_hyper_parameters_rebuild_the_data_module(data):
    options = json.loads(json.dumps(data.hparams))  # plain values only
    assert options.pop("dataset") == type(data).__name__
    assert type(data)(**options).hparams == data.hparams


@pytest.mark.real_data
def test_real_mnist():
    data = ready(MNIST(data_dir=str(REAL_DATA), binarize="none"))
    assert [len(data.splits[name]) for name in SPLITS] == [50_000, 10_000, 10_000]
    assert data.splits["test"].labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    images = torch.cat([data.splits["train"].images, data.splits["val"].images])
    assert images.float().mean().item() / 255 == pytest.approx(0.1307, abs=1e-4)  # the well-known mean


@pytest.mark.real_data
def test_real_punks():
    data = ready(CryptoPunks(data_dir=str(REAL_DATA)))
    splits = data.splits
    assert [len(splits[name]) for name in SPLITS] == [6_000, 2_000, 2_000]
    train, test = ({punk.numpy().tobytes() for punk in splits[name].images} for name in ("train", "test"))
    assert not train & test
    colours = splits["train"].images.permute(0, 2, 3, 1).reshape(-1, 3).unique(dim=0)
    assert len(colours) == 214
    assert sorted(data.palette()) == sorted(map(tuple, colours.tolist()))
    everything = torch.cat([splits[name].images for name in SPLITS])
    assert len({punk.numpy().tobytes() for punk in everything}) == 10_000
