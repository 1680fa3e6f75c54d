"""What the tests share: tiny data that they make themselves, the real data where it is at hand, and the scripts."""

import hashlib
import multiprocessing
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from helpers import DIGITS
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules import DATASETS, MNIST, CryptoPunks, ImageDataModule
from vae.cli import TrainCLI

PROJECT = Path(__file__).parents[1]
REAL_DATA = Path(os.environ.get("VAE_DATA_DIR", PROJECT / "data"))


def pytest_collection_modifyitems(items):
    files = [REAL_DATA / "punks.png", *(REAL_DATA / "MNIST" / "raw" / name for name in MNIST.sha256)]
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        skip = pytest.mark.skip(reason=f"the real data is not in $VAE_DATA_DIR: {missing[0]} is missing")
        for item in items:
            if item.get_closest_marker("real_data"):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test works in an empty folder of its own, with no data at hand but what it makes."""
    monkeypatch.chdir(tmp_path)
    for variable in ("VAE_DATA_DIR", "PL_GLOBAL_SEED"):  # the second is what seed_everything sets
        monkeypatch.delenv(variable, raising=False)
    for proxy in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # nobody listens there
    torch.manual_seed(0)


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def process(tmp_path):
    """Runs a script as its user does, as a process of its own."""

    def run(script: str, *args: str) -> Outcome:
        command = [sys.executable, str(PROJECT / script), *map(str, args)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def script(monkeypatch, capsys):
    """Runs a script in this process, which saves the seconds that importing torch takes."""

    def run(name: str, *args: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        monkeypatch.syspath_prepend(PROJECT)
        status = 0
        try:
            runpy.run_path(str(PROJECT / name), run_name="__main__")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        return Outcome(status, *capsys.readouterr())

    return run


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def tiny_punks(tmp_path, monkeypatch):
    """CryptoPunks for a sheet of 5 x 4 punks, which is painted here: punk i has the colour (10 i, i, 0)."""
    sheet = Image.new("RGBA", (4 * 24, 5 * 24))
    for i in range(20):
        sheet.paste((10 * i, i, 0, 255), (24 * (i % 4), 24 * (i // 4), 24 * (i % 4) + 24, 24 * (i // 4) + 24))
        sheet.putpixel((24 * (i % 4), 24 * (i // 4)), (0, 0, 0, 0))  # transparent, top left
        sheet.putpixel((24 * (i % 4) + 1, 24 * (i // 4)), (0, 0, 0, 128))  # half, beside it
    sheet.save(tmp_path / "punks.png")
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(CryptoPunks, "grid", (5, 4))
    monkeypatch.setattr(CryptoPunks, "cuts", (12, 4, 4))
    monkeypatch.setattr(CryptoPunks, "sha256", sha256(tmp_path / "punks.png"))
    return tmp_path


@pytest.fixture
def tiny_mnist(tmp_path, monkeypatch):
    """MNIST's four files with 60 and 20 images: the first row black, the second white, the rest a fifth grey."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 60), ("t10k", 20)):
        images = torch.full((n, 28, 28), 51, dtype=torch.uint8)
        images[:, 0], images[:, 1] = 0, 255
        images[:, 27, 27] = torch.arange(n)
        labels = torch.arange(n, dtype=torch.uint8) % 10
        for name, content, shape in (("images-idx3", images, (n, 28, 28)), ("labels-idx1", labels, (n,))):
            header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
            (raw / f"{part}-{name}-ubyte").write_bytes(header + bytes(content.flatten().tolist()))
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(MNIST, "sha256", {path.name: sha256(path) for path in sorted(raw.iterdir())})
    return tmp_path


@pytest.fixture
def run_folder(script, tmp_path):
    """A trained run, with a 2-D latent space, in lightning_logs/version_0."""
    assert script("train.py", *DIGITS, "--trainer.max_epochs", 2).status == 0
    return tmp_path / "lightning_logs" / "version_0"


@pytest.fixture
def told(tmp_path):
    """What TensorBoard is told of a run of five epochs on Digits."""
    options = ["--trainer.max_epochs", "5", "--model.hidden_dims", "16", "--data.batch_size", "1000"]
    TrainCLI(ImageDataModule, DATASETS, ["--data", "Digits", *options]).fit()
    return EventAccumulator("lightning_logs/version_0", size_guidance={"tensors": 0, "histograms": 0}).Reload()


@pytest.fixture
def context(monkeypatch):
    """Processes that are forked from one that has imported everything."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), str(PROJECT / "tests")]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["conftest", "torch.utils.tensorboard", "tensorboard.plugins.hparams.summary_v2"])
    return context
