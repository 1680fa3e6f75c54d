"""What a stranger may send: nothing of it runs, each is refused with one message, by each script that reads it."""

import os
import pickle
import resource
import shutil
import struct
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image

from vae import LitVAE, runs

SCRIPTS = ("train.py", "test.py", "visualizations.py")

EVIL = "from pathlib import Path\nPath('it_ran').touch()\nclass Evil: pass\nMNIST = Digits = Evil\n"


class Pickled:
    """Runs a command wherever it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch it_ran",)


@pytest.fixture
def run(script, tmp_path, monkeypatch):
    """A run of two images' worth of training, and a module beside it that tells whether it was imported."""
    (tmp_path / "evil.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--trainer.max_epochs", "1", "--model.hidden_dims", "8", "--trainer.limit_train_batches", "2"]
    script("train.py", "--data", "Digits", "--run_name", "theirs", *options)
    return Path("lightning_logs/theirs")


def content_of(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def refuse(script, names, *arguments, rewritten=()):
    """Each script ends with one message, has run nothing, lost nothing and taken no memory."""
    before, memory = content_of("lightning_logs"), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    messages = []
    for name in names:
        options = ["--trainer.max_epochs", "2"] if name == "train.py" else ["--data_dir", "data"]
        outcome = script(name, *arguments, *options)
        assert outcome.status == 1, (name, outcome)
        assert outcome.err.count("error: ") == 1, outcome.err
        assert "Traceback" not in outcome.err
        messages.append(outcome.err)
    assert not Path("it_ran").exists()
    after = content_of("lightning_logs")
    assert all(after[path] == content for path, content in before.items() if path.name not in rewritten)
    assert rewritten or after.keys() == before.keys()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 300_000  # kB
    return messages


def changed(path, **parts):
    torch.save(torch.load(path, weights_only=True) | parts, path)


def pickled(path):
    torch.save({"state_dict": Pickled()}, path)


def bare_pickle(path):
    path.write_bytes(pickle.dumps(Pickled()))


def pickled_beside_the_weights(path):
    torch.save(torch.load(path, weights_only=True) | {"callbacks": {"best": Pickled()}}, path)


def a_foreign_instantiator(path):
    hyper_parameters = torch.load(path, weights_only=True)["hyper_parameters"]
    changed(path, hyper_parameters=hyper_parameters | {"_instantiator": "evil.Evil", "_class_path": "evil.Evil"})


def a_foreign_data_set(path):
    changed(path, datamodule_hyper_parameters={"dataset": "evil.Digits", "batch_size": 10})


def a_foreign_likelihood(path):
    hyper_parameters = torch.load(path, weights_only=True)["hyper_parameters"]
    changed(path, hyper_parameters=hyper_parameters | {"likelihood": "evil.Evil"})


def wrong_shapes(path):
    weights = torch.load(path, weights_only=True)["state_dict"]
    changed(path, state_dict={name: value[..., :1].contiguous() for name, value in weights.items()})


def absurd_sizes(path):
    hyper_parameters = torch.load(path, weights_only=True)["hyper_parameters"]
    changed(path, hyper_parameters=hyper_parameters | {"hidden_dims": (10**6, 10**6)})


def absurd_numbers(path):
    hyper_parameters = torch.load(path, weights_only=True)["hyper_parameters"]
    changed(path, hyper_parameters=hyper_parameters | {"latent_dim": 10**30})


def sizes_that_are_only_pretended(path):
    hyper_parameters = torch.load(path, weights_only=True)["hyper_parameters"] | {"hidden_dims": (30_000, 30_000)}
    with torch.device("meta"):
        shapes = LitVAE(**hyper_parameters).state_dict()
    weights = {name: torch.zeros(()).expand(value.shape) for name, value in shapes.items()}
    changed(path, hyper_parameters=hyper_parameters, state_dict=weights)


def weights_without_content(path):
    weights = torch.load(path, weights_only=True)["state_dict"]
    changed(path, state_dict={name: value.to("meta") for name, value in weights.items()})


def no_more_than_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


CHECKPOINTS = [pickled, bare_pickle, pickled_beside_the_weights, a_foreign_instantiator, a_foreign_data_set]

CHECKPOINTS += [a_foreign_likelihood, wrong_shapes, absurd_sizes, absurd_numbers, sizes_that_are_only_pretended]

CHECKPOINTS += [weights_without_content, no_more_than_half]


@pytest.mark.parametrize("spoil", CHECKPOINTS)
def test_a_strangers_checkpoint(script, run, spoil):
    path = runs.last_checkpoint(run)
    spoil(path)
    for message in refuse(script, SCRIPTS, "--ckpt_path", path):
        assert str(path) in message


def other_states(path, change):
    optimizers = torch.load(path, weights_only=True)["optimizer_states"]
    optimizers[0]["state"] = {place: change(state) for place, state in optimizers[0]["state"].items()}
    changed(path, optimizer_states=optimizers)


OPTIMIZERS = {
    "of other sizes": lambda path: other_states(path, lambda state: state | {"exp_avg": torch.zeros(3)}),
    "pretended": lambda path: other_states(path, lambda s: s | {"exp_avg": torch.zeros(()).expand(s["exp_avg"].shape)}),
    "without one": lambda path: other_states(path, lambda state: {"step": state["step"]}),
    "of numbers": lambda path: changed(path, optimizer_states=[1, 2]),
    "none": lambda path: changed(path, optimizer_states=None),
    "loops": lambda path: changed(path, loops={"fit_loop": 3}),
    "callbacks": lambda path: changed(path, callbacks={"best": {"best_model_score": "high"}}),
    "log": lambda path: changed(path, log=["events"]),
}


@pytest.mark.parametrize("how", OPTIMIZERS)
def test_a_strangers_state_of_training(script, run, how):
    OPTIMIZERS[how](runs.last_checkpoint(run))
    found_in_use = ["config.yaml"] if how in ("loops", "callbacks") else []
    (message,) = refuse(script, ["train.py"], "--ckpt_path", runs.last_checkpoint(run), rewritten=found_in_use)
    assert str(runs.last_checkpoint(run)) in message


SETTINGS = {
    "a callback": ("  callbacks: null", "  callbacks:\n  - class_path: evil.Evil"),
    "a callback by its name": ("  callbacks: null", "  callbacks: evil.Evil"),
    "callbacks by their names": ("  callbacks: null", "  callbacks: [evil.Evil]"),
    "a function": (
        "  callbacks: null",
        "  callbacks:\n  - class_path: pytorch_lightning.callbacks.LambdaCallback\n"
        "    init_args:\n      on_fit_start: evil.Evil",
    ),
    "a profiler": ("  profiler: null", "  profiler: evil.Evil"),
    "a plugin": ("  plugins: null", "  plugins: evil.Evil"),
    "a logger": ("  logger: null", "  logger:\n    class_path: evil.Evil"),
    "a strategy": ("  strategy: auto", "  strategy:\n    class_path: evil.Evil"),
    "a data set": ("  class_path: datamodules.Digits", "  class_path: evil.Digits"),
    "a data set's option": ("    batch_size: 100", "    batch_size:\n      class_path: evil.Evil"),
    "an option of the model": ("  optimizer: Adam", "  optimizer:\n    class_path: evil.Evil"),
    "a tag": ("  optimizer: Adam", "  optimizer: !!python/object/apply:os.system ['touch it_ran']"),
    "a module's tag": ("  optimizer: Adam", "  optimizer: !!python/module:evil"),
    "no mapping": ("model:\n", "model: 3\nmodels:\n"),
    "an avalanche": (
        "  optimizer: Adam",
        "  a: &a [x, x, x, x, x, x, x, x]\n"
        + "".join(f"  {b}: &{b} [{', '.join([f'*{a}'] * 8)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True))
        + "  optimizer: *j",
    ),
}


@pytest.mark.parametrize("how", SETTINGS)
def test_a_strangers_settings(script, run, how):
    path, (plain, evil) = run / "config.yaml", SETTINGS[how]
    text = path.read_text()
    assert plain in text
    path.write_text(text.replace(plain, evil))
    (message,) = refuse(script, ["train.py"], "--ckpt_path", runs.last_checkpoint(run))
    assert str(path) in message
    for name in ("test.py", "visualizations.py"):  # which do not read it
        assert script(name, "--ckpt_path", runs.last_checkpoint(run)).status == 0
    assert not Path("it_ran").exists()


def test_settings_of_ones_own_are_followed_when_named(script, run):
    path = run / "config.yaml"
    callback = "  callbacks:\n  - class_path: pytorch_lightning.callbacks.LearningRateMonitor"
    path.write_text(path.read_text().replace("  callbacks: null", callback))
    resume = ["--ckpt_path", runs.last_checkpoint(run), "--trainer.max_epochs", "2"]
    refused = script("train.py", *resume)
    assert f"python3 train.py --config {path} --ckpt_path {runs.last_checkpoint(run)}" in refused.err
    assert script("train.py", "--config", path, *resume).status == 0
    assert torch.load(runs.last_checkpoint(run), weights_only=True)["epoch"] == 1


def test_a_configuration_with_a_tag(script, tmp_path):
    (tmp_path / "tagged.yaml").write_text("seed_everything: !!python/object/apply:os.system ['touch it_ran']\n")
    outcome = script("train.py", "--config", "tagged.yaml")
    assert outcome.status == 2
    assert outcome.err.startswith("error: ")
    assert not Path("it_ran").exists()


def bomb(path, side=60_000):
    """A image of few bytes that unpacks to gigabytes."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(1 + 3 * side)) for _ in range(50)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))


@pytest.mark.parametrize("kind", ["a bomb", "a smaller bomb", "a program"])
def test_a_strangers_pictures(script, tmp_path, kind):
    (tmp_path / "data").mkdir()
    for place in range(6):
        Image.new("RGB", (9, 9), (40 * place, 0, 0)).save(tmp_path / "data" / f"{place}.png")
    options = ["--data", "ImageFolder", "--data.data_dir", "data", "--model.hidden_dims", "8", "--data.size", "[6,6]"]
    assert script("train.py", *options, "--trainer.max_epochs", "1").status == 0
    path = tmp_path / "data" / "3.png"
    if kind == "a program":
        path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(it_ran) (w) file closefile\n")
    else:
        bomb(path, 60_000 if kind == "a bomb" else 10_000)
    for message in refuse(script, SCRIPTS, "--ckpt_path", "lightning_logs/version_0/checkpoints/last.ckpt"):
        assert "3.png" in message


def test_a_strangers_film(script, run):
    shutil.rmtree("visualization_imgs", ignore_errors=True)
    bomb(runs.frame_path(run, 1))
    outcome = script("visualizations.py", "--ckpt_path", runs.last_checkpoint(run), "--figures", "training_film")
    assert outcome.status == 1
    assert "000001.png is damaged, or too large for a film: delete it" in outcome.err
    assert outcome.err.count("\n") == 1
