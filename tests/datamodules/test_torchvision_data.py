"""Data sets of torchvision: downloaded, from tiny archives made here in each one's own format, verified and read."""

import gzip
import hashlib
import pickle
import shutil
import tarfile
from pathlib import Path
from urllib.request import urlretrieve

import numpy as np
import pytest
import torch
from helpers import SPLITS, ready
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from datamodules import MNIST, DataError, Torchvision
from datamodules.torchvision_data import SOURCES

SIZES = (12, 4)
GREY = ("FashionMNIST", "KMNIST", "EMNIST")
NAMES = tuple(SOURCES)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def idx(values):
    """An array in MNIST's format, compressed."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return gzip.compress(header + values.astype(np.uint8).tobytes())


def publish_idx(name, folder, parts, patch):
    resources = []
    for prefix, (images, labels) in zip(("train", "t10k"), parts, strict=True):
        for kind, values in (("images-idx3", images[:, 0]), ("labels-idx1", labels)):
            path = folder / f"{prefix}-{kind}-ubyte.gz"
            path.write_bytes(idx(values))
            resources.append((path.name, md5(path)))
    patch.setattr(getattr(datasets, name), "resources", resources)
    patch.setattr(getattr(datasets, name), "mirrors", [f"{folder.as_uri()}/"])


def publish_emnist(folder, parts, patch):
    """Each image is transposed in the file."""
    (folder / "pack" / "gzip").mkdir(parents=True)
    for part, (images, labels) in zip(("train", "test"), parts, strict=True):
        for kind, values in (("images-idx3", images[:, 0].transpose(0, 2, 1)), ("labels-idx1", labels)):
            (folder / "pack" / "gzip" / f"emnist-balanced-{part}-{kind}-ubyte.gz").write_bytes(idx(values))
    archive = Path(shutil.make_archive(str(folder / "gzip"), "zip", folder / "pack"))
    patch.setattr(datasets.EMNIST, "url", archive.as_uri())
    patch.setattr(datasets.EMNIST, "md5", md5(archive))


def publish_cifar10(folder, parts, patch):
    batches = folder / "cifar-10-batches-py"
    batches.mkdir()
    (images, labels), (test_images, test_labels) = parts
    pieces = {f"data_batch_{i + 1}": (images[3 * i : 3 * i + 3], labels[3 * i : 3 * i + 3]) for i in range(4)}
    for name, (some, their) in {**pieces, "test_batch": (test_images, test_labels)}.items():
        (batches / name).write_bytes(pickle.dumps({"data": some.reshape(len(some), -1), "labels": their.tolist()}))
    meta = batches / "batches.meta"
    meta.write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    with tarfile.open(folder / "cifar.tar.gz", "w:gz") as archive:
        archive.add(batches, batches.name)
    patch.setattr(datasets.CIFAR10, "train_list", [[name, md5(batches / name)] for name in pieces])
    patch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5(batches / "test_batch")]])
    patch.setattr(datasets.CIFAR10, "meta", datasets.CIFAR10.meta | {"md5": md5(meta)})
    patch.setattr(datasets.CIFAR10, "url", (folder / "cifar.tar.gz").as_uri())
    patch.setattr(datasets.CIFAR10, "tgz_md5", md5(folder / "cifar.tar.gz"))


def publish_svhn(folder, parts, patch):
    """The images last, and 10 for the label 0."""
    table = {}
    for part, (images, labels) in zip(("train", "test"), parts, strict=True):
        path = folder / f"{part}_32x32.mat"
        savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None]})
        table[part] = [path.as_uri(), path.name, md5(path)]
    patch.setattr(datasets.SVHN, "split_list", table)


def publish_omniglot(folder, parts, patch):
    """Black strokes on white, 105 x 105, one folder a character."""
    sums = {}
    for part, (images, _) in zip(("images_background", "images_evaluation"), parts, strict=True):
        for place, image in enumerate(images[:, 0]):
            path = folder / "pack" / part / "Latin" / f"character{place // 2:02}" / f"{place:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 - image).convert("1").save(path)
        archive = Path(shutil.make_archive(str(folder / part), "zip", folder / "pack", part))
        sums[part] = md5(archive)
    patch.setattr(datasets.Omniglot, "zips_md5", sums)
    patch.setattr(datasets.Omniglot, "download_url_prefix", folder.as_uri())


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Publishes a tiny data set: its images [N, C, H, W] and labels [N] of training and test. Data goes to new/."""
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path / "new"))
    monkeypatch.setattr(datasets.utils, "_urlretrieve", urlretrieve)  # torchvision's asks for a length; files have none
    folder = tmp_path / "published"

    def publish(name):
        folder.mkdir()
        random = np.random.default_rng(0)
        shape = (1, 105, 105) if name == "Omniglot" else SOURCES[name].image_shape
        parts = [
            (random.integers(256, size=(n, *shape), dtype=np.uint8), np.arange(n, dtype=np.uint8) % 10) for n in SIZES
        ]
        if name == "Omniglot":
            parts = [((images > 127).astype(np.uint8) * 255, labels) for images, labels in parts]
        monkeypatch.setitem(SOURCES, name, SOURCES[name]._replace(sizes=SIZES))
        makers = {
            "EMNIST": publish_emnist, "CIFAR10": publish_cifar10, "SVHN": publish_svhn, "Omniglot": publish_omniglot
        }  # fmt: skip
        if name in makers:
            makers[name](folder, parts, monkeypatch)
        else:
            publish_idx(name, folder, parts, monkeypatch)
        return parts

    return publish


def files(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file()]


def resized(images):
    """Images [N, 1, 105, 105] as [N, 1, 28, 28] by the triangle filter: weights fall to 0 at one new pixel's width."""
    distance = np.abs((np.arange(28)[:, None] + 0.5) * 3.75 - (np.arange(105) + 0.5)) / 3.75
    weights = np.maximum(0, 1 - distance)
    weights /= weights.sum(1, keepdims=True)
    return weights @ images @ weights.T


@pytest.mark.parametrize("name", NAMES)
def test_images_and_labels_are_those_published(published, tmp_path, name):
    (images, labels), (test_images, test_labels) = published(name)
    data = ready(Torchvision(name, val_size=3, binarize="none"))
    expected = {"train": images[:9], "val": images[9:], "test": test_images}
    expected_labels = {"train": labels[:9], "val": labels[9:], "test": test_labels}
    for split in SPLITS:
        found = data.splits[split]
        if name == "Omniglot":
            assert np.abs(found.images.numpy() - resized(expected[split])).max() <= 1
            assert found.labels is None
        else:
            assert np.array_equal(found.images.numpy(), expected[split])
            assert np.array_equal(found.labels.numpy(), expected_labels[split])
    classes = {"FashionMNIST": 10, "KMNIST": 10, "EMNIST": 47, "CIFAR10": 10, "SVHN": 10, "Omniglot": 0}
    assert len(data.classes or ()) == classes[name]
    shutil.rmtree(tmp_path / "published")
    ready(Torchvision(name, val_size=3))  # what was downloaded stays
    assert not [*(tmp_path / "new").glob(".download-*")]


@pytest.mark.parametrize("name", NAMES)
def test_torchvision_has_a_checksum_of_every_file(name):
    kind = getattr(datasets, name)
    sums = {
        "EMNIST": lambda: [kind.md5],
        "CIFAR10": lambda: [kind.tgz_md5, kind.meta["md5"], *(md5 for _, md5 in kind.train_list + kind.test_list)],
        "SVHN": lambda: [md5 for _, _, md5 in kind.split_list.values()],
        "Omniglot": lambda: [*kind.zips_md5.values()],
    }.get(name, lambda: [md5 for _, md5 in kind.resources])()
    assert all(len(md5) == 32 for md5 in sums)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["truncated", "missing"])
def test_a_download_that_fails_leaves_nothing(published, tmp_path, name, how):
    published(name)
    for path in (tmp_path / "published").iterdir():
        if path.is_file() and how == "truncated":
            path.write_bytes(path.read_bytes()[:-20])
        elif path.is_file():
            path.unlink()
    with pytest.raises(DataError, match=rf"(?s)^{name} could not be downloaded from .*\nPut .* into .*new"):
        Torchvision(name, val_size=3).prepare_data()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", [name for name in NAMES if SOURCES[name].archives])
def test_archives_that_are_there_are_unpacked_and_a_wrong_one_is_left_alone(published, tmp_path, name):
    (images, _), _ = published(name)
    place = (tmp_path / "new" / SOURCES[name].archives).parent
    place.mkdir(parents=True)
    for path in (tmp_path / "published").glob("*.*"):
        path.rename(place / path.name.replace("cifar.", "cifar-10-python."))
    for path in sorted(place.iterdir())[:1]:
        whole = path.read_bytes()
        path.write_bytes(whole[:-20])
        with pytest.raises(DataError, match=rf"{name} could not be downloaded"):
            Torchvision(name, val_size=3).prepare_data()
        assert path.read_bytes() == whole[:-20]
        path.write_bytes(whole)
    assert np.array_equal(ready(Torchvision(name, val_size=3, binarize="none")).splits["train"].images, images[:9])


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_lost_is_downloaded_again(published, tmp_path, name):
    published(name)
    data = ready(Torchvision(name, val_size=3, binarize="none"))
    present = sorted(files(tmp_path / "new"))
    lost = next(path for path in present if path.suffix != ".zip")
    lost.unlink()
    again = ready(Torchvision(name, val_size=3, binarize="none"))
    assert sorted(files(tmp_path / "new")) == present
    assert torch.equal(again.splits["train"].images, data.splits["train"].images)


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path("harmed"),)


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
def test_a_pickle_that_is_not_the_published_one_is_not_read(published, tmp_path, name):
    published("CIFAR10")
    ready(Torchvision("CIFAR10", val_size=3))
    (tmp_path / "new" / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(Harmful()))
    shutil.rmtree(tmp_path / "published")
    with pytest.raises(DataError, match="CIFAR10 could not be downloaded"):
        Torchvision("CIFAR10", val_size=3).prepare_data()
    assert not Path("harmed").exists()


def test_grey_images_are_binarised_as_those_of_mnist(published):
    (images, _), _ = published("FashionMNIST")
    data = ready(Torchvision("FashionMNIST", val_size=3))
    val = torch.from_numpy(images[9:])
    assert torch.equal(data.splits["val"].images, MNIST().binarize_once(val, "val"))
    assert set(data.splits["val"].images.unique().tolist()) == {0, 255}
    assert np.array_equal(data.splits["train"].images.numpy(), images[:9])
    assert data.binary
    assert data.palette() == ((0,), (255,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "ImageNet"}, "unknown dataset 'ImageNet': choose one of FashionMNIST, KMNIST, EMNIST"),
        ({"dataset": "SVHN", "binarize": "threshold"}, "binarize: only grey images are, and SVHN is in colour"),
        ({"binarize": "maybe"}, "unknown binarize 'maybe': choose one of dynamic, fixed, threshold, none"),
        ({"val_size": 60_000}, "val_size: expected 0 to 59,999 of the 60,000 training images, got 60000"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Torchvision(**options)


def test_a_colour_set_is_trained_on_by_its_name_alone(script, published):
    published("CIFAR10")
    data = ["--data", "Torchvision", "--data.dataset", "CIFAR10", "--data.val_size", 3]
    likelihood = ["--model.likelihood", "gaussian_fixed", "--model.hidden_dims", 8]
    trained = script("train.py", *data, *likelihood, "--trainer.max_epochs", 1)
    assert trained.status == 0, trained.err
    probed = script("test.py", "--probe", "--num_samples", 1)
    assert (probed.status, "label found by" in probed.out) == (0, True)
    resumed = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert resumed.status == 0, resumed.err


def test_a_run_is_tested_described_and_resumed(script, published):
    published("FashionMNIST")
    data = ["--data", "Torchvision", "--data.dataset", "FashionMNIST", "--data.val_size", 3]
    assert script("train.py", *data, "--model.hidden_dims", 8, "--trainer.max_epochs", 1).status == 0
    tested = script("test.py", "--num_samples", 1)
    assert (tested.status, "FashionMNIST, test" in tested.out) == (0, True)
    assert "data set                     FashionMNIST" in script("test.py", "--info").out
    resumed = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert resumed.status == 0, resumed.err
    other = script("train.py", "--ckpt_path", "last", *data[:3], "KMNIST")
    assert other.err.startswith("error: --data.dataset is KMNIST, but the run began with FashionMNIST.")
