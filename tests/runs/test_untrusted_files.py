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


def bare_pickle(path):
    path.write_bytes(pickle.dumps(Pickled()))


def pickled_beside_the_weights(path):
    torch.save(torch.load(path, weights_only=True) | {"callbacks": {"best": Pickled()}}, path)


def set_model(path, **options):
    settings = read(path)["settings"]
    changed(path, settings=settings | {"model": settings["model"] | options})


def set_data(path, name="Digits", **options):
    settings = read(path)["settings"]
    changed(path, settings=settings | {"data": {"name": name, "options": settings["data"]["options"] | options}})


def set_trainer(path, **options):
    settings = read(path)["settings"]
    changed(path, settings=settings | {"trainer": settings["trainer"] | options})


def a_foreign_instantiator(path):
    content = read(path)
    del content["settings"]  # of an older version
    content["hyper_parameters"] |= {"_instantiator": "evil.Evil", "_class_path": "evil.Evil"}
    torch.save(content, path)


def wrong_shapes(path):
    weights = torch.load(path, weights_only=True)["state_dict"]
    changed(path, state_dict={name: value[..., :1].contiguous() for name, value in weights.items()})


def sizes_that_are_only_pretended(path):
    set_model(path, hidden_dims=(30_000, 30_000))
    with torch.device("meta"):
        shapes = LitVAE(**read(path)["settings"]["model"]).state_dict()
    changed(path, state_dict={name: torch.zeros(()).expand(value.shape) for name, value in shapes.items()})


def weights_without_content(path):
    weights = torch.load(path, weights_only=True)["state_dict"]
    changed(path, state_dict={name: value.to("meta") for name, value in weights.items()})


def a_step_that_is_no_number(path):
    changed(path, global_step="many")


def no_more_than_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


CHECKPOINTS = [bare_pickle, pickled_beside_the_weights, a_foreign_instantiator, wrong_shapes]
CHECKPOINTS += [sizes_that_are_only_pretended, weights_without_content, no_more_than_half, a_step_that_is_no_number]

SETTINGS = {
    "a foreign data set": lambda path: set_data(path, "evil.Digits"),
    "a class among the model's options": lambda path: set_model(path, optimizer={"class_path": "evil.Evil"}),
    "half an image": lambda path: set_data(path, batch_size=2.5),
    "a foreign likelihood": lambda path: set_model(path, likelihood="evil.Evil"),
    "absurd sizes": lambda path: set_model(path, hidden_dims=(10**6, 10**6)),
    "endless samples": lambda path: set_model(path, num_samples=10**7),
    "a command for the terminal": lambda path: set_data(path, data_dir="\x1b[2J"),
    "an unknown option": lambda path: set_model(path, config="evil.yaml"),
    "no mapping": lambda path: changed(path, settings=3),
    "text for a group": lambda path: changed(path, settings=read(path)["settings"] | {"model": "evil.yaml"}),
}


@pytest.mark.parametrize("spoil", [*CHECKPOINTS, *(pytest.param(SETTINGS[name], id=name) for name in SETTINGS)])
def test_an_untrusted_checkpoint(refuse, run, spoil):
    path = runs.last_checkpoint(run)
    spoil(path)
    scripts = SCRIPTS if spoil is bare_pickle else SCRIPTS[:2]  # the last reads it as the second does
    for message in refuse(scripts, "--ckpt_path", path):
        assert str(path) in message


def test_what_names_code_in_a_checkpoint_is_left_out_and_named(script, run):
    function = {"class_path": "pytorch_lightning.callbacks.LambdaCallback", "init_args": {"on_fit_start": "evil.Evil"}}
    code = {"callbacks": [function], "logger": {"class_path": "evil.Evil"}, "plugins": "evil.Evil"}
    code |= {"profiler": "evil.Evil", "strategy": {"class_path": "evil.Evil"}, "accelerator": "evil.Evil"}
    set_trainer(runs.last_checkpoint(run), **code)
    (run / "config.yaml").write_text("trainer:\n  callbacks: evil.Evil\n")
    resume = ["train.py", "--ckpt_path", runs.last_checkpoint(run), "--trainer.max_epochs", 2]
    with pytest.warns(runs.SettingsLeftOut) as warned:
        resumed = script(*resume)
    assert resumed.status == 0, resumed.err
    assert not Path("it_ran").exists()
    (said,) = (str(each.message) for each in warned if each.category is runs.SettingsLeftOut)
    named = re.search(r"left out (.*);", said)[1].split(", ")
    assert {*named} == {f"--trainer.{name}" for name in code}


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


RESUMED = {
    "an option of another type": lambda path: set_trainer(path, max_epochs="many"),
    "an option that does not exist": lambda path: set_trainer(path, config="evil"),
    "options that are no mapping": lambda path: changed(path, settings=read(path)["settings"] | {"trainer": 3}),
    "of other sizes": lambda path: other_states(path, lambda state: state | {"exp_avg": torch.zeros(3)}),
    "without one": lambda path: other_states(path, lambda state: {"step": state["step"]}),
    "none": lambda path: changed(path, optimizer_states=None),
    "loops": lambda path: changed(path, loops={"fit_loop": 3}),
    "callbacks": lambda path: changed(path, callbacks={"best": {"best_model_score": "high"}}),
    "log": lambda path: changed(path, log=["events"]),
    "several numbers as the best": lambda path: other_best(path, torch.zeros(3)),
    "options of the optimiser": lambda path: other_options(path, lr="fast"),
    "an option less": lambda path: other_options(path, betas=None),
    "a text for a count": lambda path: changed(
        path, callbacks=read(path)["callbacks"] | {"Throughput": {"images_seen": "x"}}
    ),
    "a huge count": lambda path: changed(path, global_step=10**30),
    "no step": lambda path: torch.save({k: v for k, v in read(path).items() if k != "global_step"}, path),
}


@pytest.mark.parametrize("how", RESUMED)
def test_what_only_a_resume_reads_of_an_untrusted_checkpoint(refuse, run, how):
    RESUMED[how](runs.last_checkpoint(run))
    (message,) = refuse(["train.py"], "--ckpt_path", runs.last_checkpoint(run))
    assert str(runs.last_checkpoint(run)) in message


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
    messages = refuse(["train.py", "test.py"], *resume)
    messages += refuse(["visualizations.py"], *resume, "--figures", "reconstruction", "latent_scatter")
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
