"""Checkpoints are plain, rebuild model and data, and are refused where they are damaged or foreign."""

import errno
import re
from pathlib import Path

import pytest
import torch
from helpers import QUIET, fit
from PIL import Image
from pytorch_lightning import Trainer

from datamodules import DATASETS, CryptoPunks, DataWarning, Digits, ImageFolder
from vae import LitVAE, runs


def test_a_checkpoint_is_plain_and_rebuilds_model_and_data(tiny_punks):
    data = CryptoPunks("black", batch_size=5)
    lit, trainer = fit(data, latent_dim=3)
    path = trainer.checkpoint_callback.best_model_path
    content = torch.load(path, weights_only=True)
    assert not any(key.startswith("_") for key in content["hyper_parameters"] | content["datamodule_hyper_parameters"])
    for rebuilt in (LitVAE.load_from_checkpoint(path, weights_only=True), runs.load_run(path, DATASETS)[0]):
        assert rebuilt.vae.latent_dim == 3
        x = torch.rand(2, 3, 24, 24)
        torch.testing.assert_close(rebuilt.vae.reconstruct(x), lit.vae.reconstruct(x))
    found = runs.load_run(path, DATASETS, data_dir="there")[1]
    assert found.hparams == {**data.hparams, "data_dir": str(Path("there").resolve())}


def test_a_folder_that_has_changed_is_tested_on_no_image_that_was_trained_on(tmp_path):
    def add(*shades):
        for shade in shades:
            Image.new("L", (8, 8), shade).save(tmp_path / "album" / f"{shade}.png")

    def shades(data, *splits):
        return {shade for split in splits for shade in data.images(split).mul(255).mean((1, 2, 3)).int().tolist()}

    (tmp_path / "album").mkdir()
    add(*range(50))
    data = ImageFolder(size=(8, 8), channels=1, data_dir=str(tmp_path / "album"))
    path = fit(data)[1].checkpoint_callback.best_model_path
    seen = shades(data, "train", "val")
    add(*range(50, 200))
    (tmp_path / "album" / "3.png").unlink()
    new = ImageFolder(size=(8, 8), channels=1, data_dir=str(tmp_path / "album"))
    assert shades(new, "test") & seen  # as the folder is split now
    with pytest.warns(
        DataWarning, match="album has changed since training: images: 1 gone, 150 new, .* Left out .*test"
    ):
        tested = shades(runs.load_run(path, DATASETS)[1], "test")
    assert tested == shades(new, "test") - seen
    lit = LitVAE(image_shape=(1, 8, 8), hidden_dims=16)
    with pytest.warns(DataWarning, match="Left out .*test"):  # also by a run that begins with the weights
        runs.init_weights(lit, new, path)
    assert shades(new, "test") == tested
    Trainer(max_epochs=1, logger=False, **QUIET).fit(lit, new)
    second = lit.trainer.checkpoint_callback.best_model_path
    assert shades(runs.load_run(second, DATASETS)[1], "test") == tested


def damaged(path, how):
    whole = path.read_bytes()
    if how == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("this is no checkpoint")
    elif how == "foreign":
        torch.save({"state_dict": {}, "hyper_parameters": {"lr": 1.0}}, path)
    elif how == "a list":
        torch.save([1, 2, 3], path)
    elif how == "a function":
        torch.save({"hyper_parameters": print}, path)
    elif how == "an unknown data set":
        torch.save(torch.load(path, weights_only=True) | {"datamodule_hyper_parameters": {"dataset": "os"}}, path)
    elif how == "other weights":
        torch.save(torch.load(path, weights_only=True) | {"state_dict": {}}, path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "cannot be read as a checkpoint: it is truncated, or something else"),
        ("empty", "cannot be read as a checkpoint"),
        ("text", "cannot be read as a checkpoint"),
        ("a function", "cannot be read as a checkpoint"),
        ("foreign", "does not say which data its model is for"),
        ("a list", "is not a checkpoint that this project's train.py wrote"),
        ("an unknown data set", "(?s)unknown data set 'os': choose one of CryptoPunks, .*--import MODULE"),
        ("other weights", "is not a checkpoint that this project's train.py wrote"),
    ],
)
def test_a_checkpoint_that_is_none_of_ours(how, message):
    fit(Digits())
    path = next(Path("checkpoints").glob("*.ckpt"))
    damaged(path, how)
    with pytest.raises(runs.RunError, match=message):
        runs.load_run(path, DATASETS)


@pytest.mark.parametrize("expanded", [False, True])
def test_a_checkpoint_of_absurd_size_takes_no_memory(fork, tmp_path, expanded):
    """Hyper-parameters that ask for 7 GB: by themselves, and with weights that a few bytes only pretend to be."""
    fit(Digits())
    path = next(Path("checkpoints").glob("*.ckpt"))
    checkpoint = torch.load(path, weights_only=True)
    wide = checkpoint["hyper_parameters"] | {"hidden_dims": (30_000, 30_000)}
    checkpoint["hyper_parameters"] = wide
    if expanded:
        with torch.device("meta"):
            shapes = LitVAE(**wide).state_dict()
        checkpoint["state_dict"] = {name: torch.zeros(()).expand(value.shape) for name, value in shapes.items()}
    torch.save(checkpoint, path)
    load = "import sys\nfrom datamodules import DATASETS\nfrom vae import runs\nruns.load_run(sys.argv[1], DATASETS)\n"
    (tmp_path / "load.py").write_text(load)
    outcome = fork(tmp_path / "load.py", path)
    assert re.search(r"RunError: .* is not a checkpoint that this project's train\.py wrote", outcome.err)
    assert 0 < outcome.memory < 100_000


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    runs.write_atomically(tmp_path / "new" / "file", b"first")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left .*/new/file"):
        runs.write_atomically(tmp_path / "new" / "file", b"second")
    assert [path.read_bytes() for path in (tmp_path / "new").iterdir()] == [b"first"]
