"""What an untrusted file may hold: nothing of it runs, each script refuses it with one message."""

import os
import pickle
import re
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
def run(trained_once, tmp_path, monkeypatch):
    """A run of two batches' training, and a module beside it that tells whether it was imported."""
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "evil.yaml").write_text("trainer:\n  callbacks: evil.Evil\n")
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--trainer.max_epochs", 1, "--model.hidden_dims", 8, "--trainer.limit_train_batches", 2]
    return trained_once(tmp_path, "--data", "Digits", "--run_name", "theirs", *options).relative_to(tmp_path)


def content_of(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture
def refuse(fork):
    """Each script ends with one message, has run nothing, changed nothing and taken no memory."""

    def refuse(names, *arguments):
        before, messages = content_of("lightning_logs"), []
        for name in names:
            options = ["--trainer.max_epochs", "2"] if name == "train.py" else ["--data_dir", "data"]
            outcome = fork(name, *arguments, *options)
            assert outcome.status == 1, (name, outcome)
            assert outcome.err.count("error: ") == 1, outcome.err
            assert "Traceback" not in outcome.err
            assert outcome.memory < 200_000
            messages.append(outcome.err)
        assert not Path("it_ran").exists()
        assert content_of("lightning_logs") == before
        return messages

    return refuse


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


def endless_samples(path):
    changed(path, hyper_parameters=read(path)["hyper_parameters"] | {"num_samples": 10**7})


def a_command_for_the_terminal(path):
    changed(path, datamodule_hyper_parameters=read(path)["datamodule_hyper_parameters"] | {"data_dir": "\x1b[2J"})


def a_step_that_is_no_number(path):
    changed(path, global_step="many")


def no_more_than_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


CHECKPOINTS = [pickled, bare_pickle, pickled_beside_the_weights, a_foreign_instantiator, a_foreign_data_set]

CHECKPOINTS += [a_foreign_likelihood, wrong_shapes, absurd_sizes, absurd_numbers, sizes_that_are_only_pretended]

CHECKPOINTS += [weights_without_content, no_more_than_half, endless_samples, a_command_for_the_terminal]
CHECKPOINTS += [a_step_that_is_no_number]


@pytest.mark.parametrize("spoil", CHECKPOINTS)
def test_an_untrusted_checkpoint(refuse, run, spoil):
    path = runs.last_checkpoint(run)
    spoil(path)
    for message in refuse(SCRIPTS, "--ckpt_path", path):
        assert str(path) in message


def other_states(path, change):
    optimizers = torch.load(path, weights_only=True)["optimizer_states"]
    optimizers[0]["state"] = {place: change(state) for place, state in optimizers[0]["state"].items()}
    changed(path, optimizer_states=optimizers)


def read(path):
    return torch.load(path, weights_only=True)


def other_best(path, score):
    callbacks = read(path)["callbacks"]
    changed(path, callbacks=callbacks | {"best": callbacks["best"] | {"best_model_score": score}})


def other_options(path, **options):
    (state,) = read(path)["optimizer_states"]
    changed(path, optimizer_states=[state | {"param_groups": [state["param_groups"][0] | options]}])


OPTIMIZERS = {
    "of other sizes": lambda path: other_states(path, lambda state: state | {"exp_avg": torch.zeros(3)}),
    "pretended": lambda path: other_states(path, lambda s: s | {"exp_avg": torch.zeros(()).expand(s["exp_avg"].shape)}),
    "without one": lambda path: other_states(path, lambda state: {"step": state["step"]}),
    "of numbers": lambda path: changed(path, optimizer_states=[1, 2]),
    "none": lambda path: changed(path, optimizer_states=None),
    "loops": lambda path: changed(path, loops={"fit_loop": 3}),
    "callbacks": lambda path: changed(path, callbacks={"best": {"best_model_score": "high"}}),
    "log": lambda path: changed(path, log=["events"]),
    "no number as the best": lambda path: other_best(path, "high"),
    "several numbers as the best": lambda path: other_best(path, torch.zeros(3)),
    "options of the optimiser": lambda path: other_options(path, lr="fast"),
    "an option less": lambda path: other_options(path, betas=None),
    "no version": lambda path: changed(path, **{"pytorch-lightning_version": "the newest"}),
    "no step": lambda path: torch.save({k: v for k, v in read(path).items() if k != "global_step"}, path),
}


@pytest.mark.parametrize("how", OPTIMIZERS)
def test_an_untrusted_state_of_training(refuse, run, how):
    OPTIMIZERS[how](runs.last_checkpoint(run))
    (message,) = refuse(["train.py"], "--ckpt_path", runs.last_checkpoint(run))
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
    "a dotted key": ("model:\n", "trainer.callbacks: evil.Evil\nmodel:\n"),
    "a dotted key of the data": ("model:\n", "data.class_path: evil.Digits\nmodel:\n"),
    "a dotted key in a group": ("  callbacks: null", "  callbacks.class_path: evil"),
    "another file": ("model:\n", "config: evil.yaml\nmodel:\n"),
    "another file for a group": ("model:\n", "  config: evil.yaml\nmodel:\n"),
    "a class for the model": ("model:\n", "model:\n  class_path: evil.Evil\n"),
    "a command for the terminal": ("  activation: relu", '  activation: "\\e[2J"'),
    "nested a thousand times": ("  optimizer: Adam", f"  optimizer: {'[' * 3000}"),
    "a day that does not exist": ("  optimizer: Adam", "  optimizer: 2024-99-99"),
    "a value of another type": ("  max_epochs: 1", "  max_epochs: many"),
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
def test_an_untrusted_settings(refuse, run, how):
    path, (plain, evil) = run / "config.yaml", SETTINGS[how]
    text = path.read_text()
    assert plain in text
    path.write_text(text.replace(plain, evil))
    (message,) = refuse(["train.py"], "--ckpt_path", runs.last_checkpoint(run))
    assert str(path) in message


def test_test_and_visualizations_do_not_read_settings(script, run):
    path, (plain, evil) = run / "config.yaml", SETTINGS["a callback"]
    path.write_text(path.read_text().replace(plain, evil))
    for name in ("test.py", "visualizations.py"):
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
def test_untrusted_images(script, refuse, tmp_path, kind):
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
    resume = ["--ckpt_path", "lightning_logs/version_0/checkpoints/last.ckpt"]
    messages = refuse(SCRIPTS[:2] if kind == "a bomb" else ["test.py"], *resume)  # which all read it alike
    assert all("3.png" in message for message in messages)


def test_an_untrusted_film(script, run):
    shutil.rmtree("visualization_imgs", ignore_errors=True)
    bomb(runs.frame_path(run, 1))
    outcome = script("visualizations.py", "--ckpt_path", runs.last_checkpoint(run), "--figures", "training_film")
    assert outcome.status == 1
    assert "000001.png is damaged, or too large for a film: delete it" in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_file_stripped_to_its_model(script, refuse, run):
    """It can be tested and described, as can the models in `pretrained/`."""
    path = runs.last_checkpoint(run)
    kept = ("state_dict", "hyper_parameters", "datamodule_hyper_parameters")
    torch.save({name: value for name, value in read(path).items() if name in kept}, path)
    tested = script("test.py", "--ckpt_path", path)
    assert (tested.status, tested.err) == (0, "")
    shown = script("test.py", "--ckpt_path", path, "--info")
    assert (shown.status, shown.err) == (0, "")
    assert re.search(r"epochs +unknown", shown.out)
    refuse(["train.py"], "--ckpt_path", path)


def test_versions_that_command_the_terminal(script, run):
    path = runs.last_checkpoint(run)
    changed(path, versions={"python": "\x1b[2J"})
    shown = script("test.py", "--ckpt_path", path, "--info")
    assert shown.status == 1
    assert "\x1b" not in shown.out + shown.err
