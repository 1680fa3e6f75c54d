"""What the tests share: tiny data that they make themselves, the real data where it is at hand, and the scripts."""

import gc
import hashlib
import os
import runpy
import shutil
import sys
from math import inf
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import DIGITS
from PIL import Image
from processes import PROJECT, Forked, Fresh, Outcome, Running, serve
from scipy.io import savemat
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules import DATASETS, MNIST, CryptoPunks, FreyFace, ImageDataModule
from vae.cli import TrainCLI

REAL_DATA = Path(os.environ.get("VAE_DATA_DIR", PROJECT / "data"))


def pytest_collection_modifyitems(items):
    files = [REAL_DATA / "punks.png", *(REAL_DATA / "MNIST" / "raw" / name for name in MNIST.sha256)]
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        skip = pytest.mark.skip(reason=f"the real data is not in $VAE_DATA_DIR: {missing[0]} is missing")
        for item in items:
            if item.get_closest_marker("real_data"):
                item.add_marker(skip)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop():
    gc.freeze()  # what the imports made: a full collection takes 0.3 s with it, and forks would copy its pages
    serve()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test works in an empty folder of its own, with no data at hand but what it makes."""
    monkeypatch.chdir(tmp_path)
    for variable in ("VAE_DATA_DIR", "PL_GLOBAL_SEED"):  # the second is what seed_everything sets
        monkeypatch.delenv(variable, raising=False)
    for proxy in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # nobody listens there
    torch.manual_seed(0)


@pytest.fixture(params=[Forked, pytest.param(Fresh, marks=pytest.mark.slow)])
def start(request, tmp_path_factory):
    """Starts a script as a process of its own: a fork of a server, and among the slow tests a fresh interpreter."""
    started = []

    def start(script: str, *args: object, **environ: str) -> Running:
        started.append(request.param(tmp_path_factory.mktemp("streams"), script, *args, **environ))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()


@pytest.fixture
def process(start):
    """Runs a script as a process of its own, to its end."""
    return lambda script, *args, **environ: start(script, *args, **environ).result()


@pytest.fixture
def fork(tmp_path_factory):
    """Runs a script in a fork of a server, where it is known how much memory it took."""
    return lambda *args, **environ: Forked(tmp_path_factory.mktemp("streams"), *args, **environ).result()


@pytest.fixture
def script(monkeypatch, capsys):
    """Runs a script in this process, which saves the seconds that importing torch takes."""
    monkeypatch.setattr(sys.modules["vae.callbacks.progress"], "SECONDS_BETWEEN_LINES", inf)  # however slow the machine

    def run(name: str, *args: str) -> Outcome:
        capsys.readouterr()  # what a fixture printed
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
def tiny_faces(tmp_path, monkeypatch):
    """FreyFace for a film of 20 frames of noise."""
    pixels = np.random.default_rng(0).integers(256, size=(20, 560), dtype=np.uint8)
    savemat(tmp_path / "frey_rawface.mat", {"ff": pixels.T}, do_compression=True)
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(FreyFace, "sha256", hashlib.sha256(pixels.tobytes()).hexdigest())
    monkeypatch.setattr(FreyFace, "cuts", (12, 4, 4))
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


def train(folder: Path, *options: object) -> Path:
    """The run of a training in that folder."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.chdir(folder)
        cli = TrainCLI(ImageDataModule, DATASETS, [*map(str, options)])
        cli.fit()
        return folder / cli.trainer.log_dir


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    """Trains with some options once a session, and gives each test its own copy of the run."""
    runs = {}

    def copy_to(folder: Path, *options: object) -> Path:
        if options not in runs:
            runs[options] = train(tmp_path_factory.mktemp("trained"), *options)
        run = runs[options]
        return shutil.copytree(run, folder / "lightning_logs" / run.name)

    return copy_to


@pytest.fixture
def run_folder(trained_once, tmp_path):
    """A trained run, with a 2-D latent space, in lightning_logs/version_0."""
    return trained_once(tmp_path, *DIGITS, "--trainer.max_epochs", 2)


@pytest.fixture
def logged_run(trained_once, tmp_path):
    """A run of five epochs, whose log is read, in lightning_logs/version_0."""
    return trained_once(
        tmp_path, *DIGITS, "--model.hidden_dims", 16, "--trainer.max_epochs", 5, "--data.batch_size", 1000
    )


@pytest.fixture
def events(logged_run):
    """The events of that run in TensorBoard."""
    return EventAccumulator(str(logged_run), size_guidance={"tensors": 0, "histograms": 0}).Reload()
