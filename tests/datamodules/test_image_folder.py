"""ImageFolder: how images are found, split, labelled and read, in folders made here."""

import os
import warnings
from pathlib import Path

import pytest
import torch
from helpers import SPLITS, ready
from PIL import ExifTags, Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from torchvision.transforms.functional import pil_to_tensor

from datamodules import DataError, DataWarning, ImageFolder, image_folder, memory


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


def test_images_that_fill_the_memory_are_mapped(album, monkeypatch):
    kept = ready(ImageFolder(size=(6, 10), data_dir=str(album))).splits
    monkeypatch.setattr(memory, "memory_limit", lambda: 10_000)
    before = Path("/proc/self/maps").read_text().count(str(album.resolve()))
    mapped = ready(ImageFolder(size=(6, 10), data_dir=str(album))).splits
    assert Path("/proc/self/maps").read_text().count(str(album.resolve())) == before + 1
    assert all(torch.equal(mapped[name].images, kept[name].images) for name in SPLITS)
    assert sorted(path.name for path in album.iterdir()) == [".hidden", "cats", "dogs"]  # nothing stays behind


def test_the_memory_limit_is_that_of_the_machine_or_of_its_container(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUP_LIMIT", limit)
    machine = memory.memory_limit()
    assert machine == memory.psutil.virtual_memory().total
    for content, expected in (("max\n", machine), ("123456\n", 123_456), (str(2**62), machine)):
        limit.write_text(content)
        assert memory.memory_limit() == expected
    assert "os.sysconf" not in Path(memory.__file__).read_text()  # which Windows lacks


def test_image_folder_without_sub_folders_has_no_labels(album):
    data = ready(ImageFolder(size=(6, 10), channels=1, data_dir=str(album / "cats")))
    assert data.classes is None
    assert next(iter(data.train_dataloader())).labels is None
    assert data.splits["train"].images.shape[1:] == (1, 6, 10)


def test_image_folder_cuts_the_longer_sides_and_puts_transparent_pixels_on_white(tmp_path):
    for name in "abc":
        image = Image.new("RGBA", (30, 10), (0, 0, 0, 0))
        image.paste((255, 0, 0, 255), (10, 0, 20, 5))
        image.save(tmp_path / f"{name}.png", compress_level="abc".index(name))  # copies would be one image
    image = ready(ImageFolder(size=(10, 10), data_dir=str(tmp_path))).splits["test"].images[0]
    assert image[:, 1, 5].tolist() == [255, 0, 0]
    assert image[:, 8, 5].tolist() == [255, 255, 255]


@pytest.mark.parametrize("side", [8, 24, 100])  # scaled down, as it is, and up
def test_pixel_art_keeps_its_colours(tmp_path, side):
    tile = torch.randint(3, (12, 12), generator=torch.Generator().manual_seed(0)).repeat_interleave(2, 0)
    palette = torch.tensor([[0, 0, 0], [200, 30, 40], [255, 255, 255]], dtype=torch.uint8)
    pixels = palette[tile.repeat_interleave(2, 1)]
    for i in range(3):
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{i}.png", compress_level=i)  # copies would be one image
    options = {"size": (side, side), "data_dir": str(tmp_path)}
    image = ready(ImageFolder(**options, resample="nearest")).splits["test"].images[0]
    assert {*map(tuple, image.flatten(1).T.tolist())} == {*map(tuple, palette.tolist())}
    places = (torch.arange(side) + 0.5).mul(24 / side).long()  # the pixel below each one's middle
    assert torch.equal(image.permute(1, 2, 0), pixels[places][:, places])
    smooth = ready(ImageFolder(**options)).splits["test"].images[0]
    assert torch.equal(smooth, image) == (side == 24)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "ImageFolder needs the folder of your images: --data.data_dir FOLDER"),
        ({"data_dir": ".", "channels": 2}, r"channels: expected 1 \(grey\) or 3 \(colour\), got 2"),
        *(
            ({"data_dir": ".", "size": size}, r"size: expected a height and a width of at least 1.* and at most 67,")
            for size in ((0, 5), (5, 5, 5), 5, "55", (8.0, 8), (True, 8), (100_000, 100_000))
        ),
        ({"data_dir": ".", "resample": "cubic"}, "resample: expected smooth or nearest, got cubic"),
    ],
)
def test_image_folder_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        ImageFolder(**options)


def test_files_that_are_no_images_are_skipped_and_counted(album):
    (album / "cats" / "captions.txt").write_text("hello")
    (album / "Thumbs.db").write_bytes(b"thumbs")
    with pytest.warns(UserWarning, match=r"album: skipped 2 files, not images by their suffix\.") as warned:
        data = ready(ImageFolder(size=(6, 10), data_dir=str(album)))
    assert len(warned) == 1
    assert sum(len(data.splits[name]) for name in SPLITS) == 30
    assert data.classes == ("cats", "dogs")


def test_no_warning_where_all_files_are_images(album):
    (album / "dogs" / "00.png").rename(album / "dogs" / "00.PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        ready(ImageFolder(data_dir=str(album)))


def test_a_file_that_is_no_image_under_the_name_of_one(album):
    (album / "cats" / "notes.png").write_text("hello")
    with pytest.raises(
        DataError, match=r"notes\.png cannot be read as an image: repair it, or move it out of the folder"
    ):
        ready(ImageFolder(data_dir=str(album)))


def shades(data):
    """The colours by which the images of each split are known."""
    return {name: data.splits[name].images[:, 0, 0, 0].tolist() for name in SPLITS}


def test_new_names_change_neither_the_split_nor_the_order(album):
    before = shades(ready(ImageFolder(data_dir=str(album))))
    (album / "cats").rename(album / "wild cats")
    for path in (album / "dogs").iterdir():
        path.rename(path.with_name(f"renamed {path.name}"))
    assert shades(ready(ImageFolder(data_dir=str(album)))) == before


def arrange(album, *splits):
    """Move the images into sub-folders by turns; returns what each of them then holds."""
    held = {split: [] for split in splits}
    for i, path in enumerate(sorted(album.rglob("*.png"))):
        folder = album / splits[i % len(splits)] / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)
        held[splits[i % len(splits)]].append(8 * int(path.stem))
    for name in ("cats", "dogs"):
        (album / name).rmdir()
    return {split: sorted(held[split]) for split in splits}


def test_sub_folders_train_val_and_test_are_the_split(album):
    held = arrange(album, *SPLITS)
    Image.new("RGB", (4, 4)).save(album / "cover.png")
    with pytest.warns(
        UserWarning, match=r"skipped 1 files, not images by their suffix, or outside of train, val, test\."
    ):
        data = ready(ImageFolder(data_dir=str(album)))
    assert {name: sorted(values) for name, values in shades(data).items()} == held
    assert data.classes == ("cats", "dogs")
    for name in SPLITS:
        assert (data.splits[name].labels == (data.splits[name].images[:, 0, 0, 0] // 8 % 3 == 0)).all()


def test_without_val_a_tenth_of_train_validates(album):
    held = arrange(album, "train", "test")
    found = shades(ready(ImageFolder(data_dir=str(album))))
    assert [len(found[name]) for name in SPLITS] == [14, 1, 15]
    assert sorted(found["test"]) == held["test"]
    assert sorted(found["train"] + found["val"]) == held["train"]


def test_one_training_image_is_trained_on(tmp_path):
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4), "red" if name == "train" else "blue").save(tmp_path / name / "0.png")
    assert shades(ready(ImageFolder(data_dir=str(tmp_path)))) == {"train": [255], "val": [], "test": [0]}


@pytest.mark.parametrize(
    "splits",
    [
        ("Train", "VAL", "Test"),
        ("training", "validation", "testing"),
        ("train", "valid", "test"),
        ("my images/Training", "my images/dev", "my images/test"),
    ],
)
def test_other_spellings_of_the_splits_and_a_folder_around_them(album, splits):
    held = arrange(album, *splits)
    data = ready(ImageFolder(data_dir=str(album)))
    assert [sorted(values) for values in shades(data).values()] == [*held.values()]
    assert data.classes == ("cats", "dogs")


@pytest.mark.parametrize(
    ("splits", "named"),
    [
        (("train", "cats and dogs"), "train."),  # a split of its own, or a class
        (("cats and dogs", "Test"), "Test."),
        (("val", "test"), "test, val."),
        (("train", "val", "validation"), "train, val, validation."),
        (("train", "test", "val2017"), "test, train, val2017."),
        (("train2017", "val2017"), "train2017, val2017."),
        (("train cats", "test cats"), "test cats, train cats."),
        (("Xtrain", "Xtest", "others"), "Xtest, Xtrain."),
        (("here/mytraining", "here/mytest"), "here/mytest, here/mytraining."),
        (("trn", "tst"), "trn, tst."),
        (("all/TR", "all/va", "all/te"), "all/TR, all/te, all/va."),
        (("one/train", "one/test", "two/train"), "one/test, one/train, two/train."),
        (("train", "test", "test/val"), "test, test/val, train."),
        (("album/train", "album/test", "others"), "album/test, album/train."),
    ],
)
def test_folders_named_like_splits_that_are_none(album, splits, named):
    arrange(album, *splits)
    message = f"album: cannot tell the split from folders of these names: {named}\nExpected train and val or test, each"
    with pytest.raises(DataError, match=message.replace(".", "\\.")):
        ready(ImageFolder(data_dir=str(album)))


@pytest.mark.parametrize(
    "classes",
    [
        ("bullet train", "hot dogs"),
        ("contest", "festival", "strain"),
        ("contrain", "untest"),
        ("de", "en", "te", "tr"),
        ("part1", "part2"),
    ],
)
def test_a_part_of_the_name_of_a_class_makes_no_split(album, classes):
    arrange(album, *classes)
    assert ready(ImageFolder(data_dir=str(album))).classes == classes


def test_links_to_folders_are_followed_but_not_in_a_circle(album, tmp_path):
    expected = ready(ImageFolder(data_dir=str(album)))
    (album / "cats").rename(tmp_path / "elsewhere")
    (album / "cats").symlink_to(tmp_path / "elsewhere")
    (album / "dogs" / "all").symlink_to(album)
    (tmp_path / "elsewhere" / "back").symlink_to(album / "dogs")
    data = ready(ImageFolder(data_dir=str(album)))
    assert data.classes == expected.classes
    assert {*sum(shades(data).values(), [])} == {*sum(shades(expected).values(), [])}
    (album / "dogs" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"gone\.png cannot be read: No such file or directory"):
        ready(ImageFolder(data_dir=str(album)))


def test_names_of_folders_are_texts_and_each_class_has_its_own(tmp_path):
    names = b"caf\xe9", b"caf\xe8", b"two\nlines\x1b[31m", "é".encode(), b"no folder", b""
    for i, name in enumerate(names):
        folder = tmp_path / os.fsdecode(b"\xe9tudes") / os.fsdecode(name)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (8 * i, 0, 255)).save(folder / os.fsdecode(b"\xe9.png"))
    (folder / "notes.txt").touch()
    with pytest.warns(DataWarning, match=r"\\xe9tudes: skipped 1 files"):
        data = ready(ImageFolder(data_dir=str(tmp_path / os.fsdecode(b"\xe9tudes"))))
    assert data.name == r"\xe9tudes"
    classes = {
        data.classes[label]: shade // 8
        for part in SPLITS
        for label, shade in zip(data.splits[part].labels, shades(data)[part], strict=True)
    }
    assert [*classes] == sorted(classes, key=[*classes].index)
    assert {value: name for name, value in classes.items()} == dict(
        enumerate([r"caf\xe9", r"caf\xe8", r"two\nlines\x1b[31m", "é", "no folder", "(no folder)"])
    )


def test_a_long_name_leaves_room_in_that_of_a_file(tmp_path):
    assert ImageFolder(data_dir=str(tmp_path / ("語" * 80))).name == "語" * 33


def test_a_folder_of_few_images_trains_in_at_least_ten_steps(album):
    data = ready(ImageFolder(data_dir=str(album)))
    assert [block.sizes for block in data.train_dataloader()] == [(2,) * 10, (2, 2)]


def test_image_folder_with_a_truncated_image(album):
    Image.effect_noise((64, 64), 90).save(album / "cats" / "noise.png")
    whole = (album / "cats" / "noise.png").read_bytes()
    (album / "cats" / "noise.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"noise\.png cannot be read as an image"):
        ready(ImageFolder(data_dir=str(album)))


def test_an_image_of_too_many_pixels_is_no_damaged_one(album, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses to open images of twice as many
    with pytest.raises(DataError, match=r"png has too many pixels, more than 67,108,864: scale it down"):
        ready(ImageFolder(data_dir=str(album)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(image_folder, "MAX_PIXELS", 200)
    with pytest.raises(DataError, match=r"png has too many pixels, more than 200: scale it down"):
        ready(ImageFolder(size=(4, 4), data_dir=str(album)))


@pytest.mark.parametrize("orientation", [1, 6])  # as it is, and turned by 90 degrees
def test_a_large_jpeg_is_decoded_at_a_reduced_size(tmp_path, monkeypatch, orientation):
    noise = torch.rand(3, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(noise, scale_factor=12.5, mode="bicubic").clamp(0, 1)
    detail = torch.rand(3, 3, 300, 400, generator=torch.Generator().manual_seed(1))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for i, image in enumerate((0.7 * smooth + 0.3 * detail).mul(255).byte()):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.jpg", quality=95, exif=exif)
    sizes = []
    load = JpegImageFile.load
    monkeypatch.setattr(JpegImageFile, "load", lambda image: sizes.append(image.size) or load(image))
    splits = ready(ImageFolder(size=(12, 18), data_dir=str(tmp_path))).splits
    assert {*sizes} == {(100, 75)}
    monkeypatch.undo()
    found = {tuple(splits[split].images[0].flatten().tolist()) for split in SPLITS}
    for path in tmp_path.iterdir():
        whole = ImageOps.fit(ImageOps.exif_transpose(Image.open(path)), (18, 12), Image.Resampling.LANCZOS)
        expected = pil_to_tensor(whole).flatten().float()
        assert min((torch.tensor(image) - expected).abs().max() for image in found) <= 4


def test_pixels_of_16_bits_are_refused(album):
    Image.new("I;16", (20, 12), 40_000).save(album / "cats" / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png has pixels of 16 bits or more: save it with 8 bits"):
        ready(ImageFolder(data_dir=str(album)))


def test_an_empty_or_missing_image_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"empty holds 0 images: a split into three needs at least 3"):
        ready(ImageFolder(data_dir="empty"))
    with pytest.raises(
        DataError, match=r"data_dir: there is no folder .*nowhere; expected the folder of your images"
    ) as e:
        ready(ImageFolder(data_dir="nowhere"))
    assert "--" not in str(e.value)  # the option has one name in train.py, another in test.py
