"""A wrong input or a disk that fails ends in one clear message."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from helpers import DIGITS
from processes import PROJECT, wait_for

WRONG = [
    (
        "train.py --data MNISTT",
        2,
        "unknown data set 'MNISTT': choose one of MNIST, CryptoPunks, Digits, FreyFace",
    ),
    (
        "train.py --data Digits --data.size 3",
        2,
        "unknown option --data.size. --data Digits has: --data.data_dir, --data.batch_size",
    ),
    (
        "train.py --model.latent_dims 3",
        2,
        "(?s)unknown option --model.latent_dims\nNearest: --model.latent_dim, .*There are: .*--model.likelihood",
    ),
    ("train.py --trainer.max_epoch 3", 2, "unknown option --trainer.max_epoch\nNearest: --trainer.max_epochs"),
    ("train.py --batch_size 3", 2, "unknown option --batch_size\nNearest: --data.batch_size"),
    ("train.py --epochs 3", 2, "unknown option --epochs\nNearest: .*--trainer.max_epochs"),
    ("train.py fit --data Digits", 2, "unexpected fit: .*; there are no sub-commands, train.py trains"),
    ("train.py -- --data Digits", 2, "^error: unknown option --\\nThere are: --help, --config,"),
    ("train.py --data mnist", 2, "(?s)unknown data set 'mnist': choose one of MNIST, .*\nNearest: --data MNIST\n"),
    ("train.py --data punk", 2, "\nNearest: --data CryptoPunks\n"),
    ("train.py --data fashion", 2, "\nNearest: --data Torchvision --data.dataset FashionMNIST\n"),
    ("train.py --data Digits --run_name ..", 1, "A run's name is that of a folder .* got '..'"),
    ("train.py --ckpt_path=", 2, "--ckpt_path: expected a value, got none: is a variable empty"),
    ("train.py --data Digits --trainer.logger false", 2, "trainer.logger: a run always writes into its folder"),
    ("train.py --model.latent_dim 1000000000000", 2, "error: "),
    ("train.py --ckpt_path last --run_name /nowhere", 1, "A run's name is that of a folder in lightning_logs"),
    ("train.py --data.data_dir caf\udce9", 2, r"'caf\\udce9' is no UTF-8: rename that file or folder, or name a link"),
    ("train.py --model.latent_dim 0", 2, "latent_dim: expected a whole number of at least 1, got 0"),
    ("train.py --model.latent_dim two", 2, "^error: --model.latent_dim: expected a whole number, got two\n"),
    (
        "train.py --model.hidden_dims [4,x]",
        2,
        r"--model.hidden_dims: expected a whole number or a list as in \"\[256,128\]\", got \['?4'?, 'x'\]",
    ),
    ("train.py --model.hidden_dims 256,128", 2, r'--model.hidden_dims: .*as in "\[256,128\]", got 256,128'),
    ("train.py --data ImageFolder --data.data_dir x --data.size 48", 2, r'--data.size: .*as in "\[256,128\]", got 48'),
    (
        "train.py --model.likelihood poisson",
        2,
        "--model.likelihood: expected one of bernoulli, continuous_bernoulli, gaussian, .*categorical, got poisson",
    ),
    ("train.py --model.activation gelu", 2, "--model.activation: expected one of relu, tanh, got gelu"),
    ("train.py --model.optimizer adam", 2, "--model.optimizer: expected one of .*Adam, .*, got adam"),
    ("train.py --model.seed 4", 2, "--model.seed: the seed of model and data is one, --seed_everything"),
    ("train.py --data ImageDataModule --data.size 3", 2, "unknown data set 'ImageDataModule': choose one of MNIST"),
    ("train.py --data Digits --data.batch_size many", 2, "--data.batch_size: expected a whole number.*, got many"),
    ("train.py --data Digits --trainer.devices two", 2, "--trainer: .*devices.* should be an int > 0"),
    ("train.py --data Digits --trainer.accelerator tpu", 2, "--trainer: .*torch_xla"),
    ("train.py --data Digits --trainer.precision 17", 2, "--trainer.precision: expected one of 64, .*bf16.*, got 17"),
    ("train.py --data Digits --trainer.callbacks Timer", 2, "--trainer: config.yaml cannot hold these callbacks"),
    ("train.py --data Digits --trainer.callbacks EarlyStopping", 2, "--trainer.callbacks EarlyStopping: .*: monitor"),
    ("train.py --seed_everything -1", 2, "expected a whole number of at least 0 and below 4,294,967,296, got -1"),
    ("train.py --seed_everything x1", 2, "and below 4,294,967,296, got x1"),
    ("train.py lightning_logs/mine", 2, "unexpected lightning_logs/mine: .* with --ckpt_path lightning_logs/mine"),
    ("test.py mine", 2, "unexpected mine: name a checkpoint or a run with --ckpt_path mine"),
    (
        "train.py --data CryptoPunks --data.background mauvish",
        2,
        "background: expected marketplace, black, white or another colour name, got 'mauvish'",
    ),
    (
        "train.py --data CryptoPunks --data.background #000000",
        2,
        "background: expected marketplace, black, white or another colour name, got None",
    ),
    (
        "train.py --data ImageFolder --data.data_dir no --model.likelihood categorical",
        2,
        "^error: data_dir: there is no",
    ),
    ("train.py --data MNIST --data.val_size 60000", 2, "val_size: expected 0 to 59,999"),
    ("train.py --data ImageFolder", 2, "ImageFolder needs the folder of your images: --data.data_dir FOLDER"),
    (
        "train.py --data ImageFolder --data.data_dir nowhere",
        1,
        "data_dir: there is no folder .*nowhere; expected the folder of your images",
    ),
    ("train.py --config nowhere.yaml", 2, "nowhere.yaml"),
    ("train.py --ckpt_path last", 1, "(?s)There is no checkpoint in lightning_logs.*Train a model first"),
    ("train.py --ckpt_path nowhere.ckpt", 1, "There is no checkpoint 'nowhere.ckpt'"),
    (
        "train.py",
        1,
        r"(?s)MNIST could not be downloaded.*Put train-images-idx3-ubyte\[.gz\], .* into data/MNIST/raw\. .*Digits",
    ),
    (
        "train.py --data CryptoPunks",
        1,
        "(?s)punks.png could not be downloaded.*Put punks.png into data. The data set Digits needs no file",
    ),
    ("train.py --trainer.accumulate_grad_batches 0", 2, "accumulate_grad_batches: expected a whole number of at least"),
    ("train.py --trainer.check_val_every_n_epoch 0", 2, "check_val_every_n_epoch: expected a whole number of at least"),
    ("test.py", 1, "(?s)There is no checkpoint in lightning_logs.*Train a model first: python3 train.py"),
    ("test.py --ckpt_path nowhere.ckpt", 1, "There is no checkpoint 'nowhere.ckpt': name one that exists"),
    ("test.py --split train", 2, "--split: expected one of test, val, got train"),
    ("test.py --samples 5", 2, "unknown option --samples\nNearest: --num_samples"),
    ("test.py --num_samples 0", 2, "expected a number of at least 1, or rising ones as in 1,10,100; got 0"),
    ("visualizations.py --split foo", 2, "--split: expected one of train, val, test, all, got foo"),
    ("visualizations.py --grid_size 0", 2, "--grid_size: expected a whole number above 0, got 0"),
    ("visualizations.py --runs a/b", 1, "A run's name is that of a folder in lightning_logs, not a path; got 'a/b'"),
    (
        "visualizations.py --figures mona_lisa",
        2,
        r"invalid choice: 'mona_lisa' \(choose from 'reconstruction', .*'training_film'.*\)",
    ),
]


@pytest.mark.parametrize(("command", "status", "message"), WRONG, ids=[command for command, _, _ in WRONG])
def test_a_wrong_input_gets_one_clear_message(script, tmp_path, command, status, message):
    outcome = script(*command.split())
    assert outcome.status == status
    assert re.search(message, outcome.err), outcome.err
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) <= 5
    assert outcome.out == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


REFUSED = {
    "accumulate_grad_batches 2": "--data.batch_size",
    "barebones true": "--trainer.fast_dev_run",
    "default_root_dir elsewhere": "--run_name",
    "gradient_clip_algorithm value": "--model.gradient_clip_val",
    "gradient_clip_val 1": "--model.gradient_clip_val",
    "limit_predict_batches 1": "does not predict",
    "limit_test_batches 1": "test.py",
    "logger false": "--trainer.fast_dev_run",
    "model_registry mine": "folder",
    "num_sanity_val_steps 2": "validation",
    "overfit_batches 2": "--trainer.limit_train_batches",
    "use_distributed_sampler true": "shard",
    "limit_train_batches 0": "at least 1, got 0",
    "max_epochs 0": "at least 1, got 0",
    "max_time 00:00:00:00": "more than no time",
    "max_steps 0": "at least 1, got 0",
    "val_check_interval 0": "at least 1, got 0",
    "strategy ddp_spawn": "ddp",
    "strategy ddp_notebook": "ddp",
}


@pytest.mark.parametrize("option", REFUSED)
def test_an_option_of_the_trainer_that_is_refused(script, tmp_path, option):
    outcome = script("train.py", *DIGITS, *f"--trainer.{option}".split())
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: --trainer.{option.split()[0]}: ")
    assert REFUSED[option] in outcome.err
    assert re.fullmatch(r"All options: python3 .*train\.py --trainer\.help", outcome.err.splitlines()[1])
    assert [*tmp_path.iterdir()] == []


FILES = {
    "model:\n  latent_dims: 3\n": "file.yaml: unknown option --model.latent_dims\nNearest: --model.latent_dim",
    "modle:\n  latent_dim: 3\n": "file.yaml: unknown option --modle.latent_dim\nNearest: --model.latent_dim",
    "model:\n  latent_dim: two\n": "file.yaml: --model.latent_dim: expected a whole number, got two",
    "model:\n  seed: 2\n": "file.yaml: --model.seed: the seed of model and data is one",
    "model: [\n": "file.yaml: while parsing",
    "trainer: 3\n": "--trainer: expected options with values, got 3",
    "data: Foo\n": "file.yaml: unknown data set 'Foo': choose one of MNIST",
    "data:\n  class_path: Digits\n  init_args:\n    size: 3\n": "file.yaml: unknown option --data.size. --data Digits",
    "data:\n  class_path: Digits\n  init_args:\n    seed: 3\n": "file.yaml: --data.seed: the seed of model and data",
    "- 1\n": "file.yaml: Unexpected config",
    "# nothing\n": "file.yaml: the file is empty; expected options",
    "data:\n  class_path: Digits\n  init_args: [1]\n": "file.yaml: line 3: init_args: expected options with values",
    "import: anything\n": "file.yaml: import: only the command line can have it, --import",
    "config: other.yaml\n": "file.yaml: config: only the command line can have it, --config",
    "model:\n  latent_dim: 3\nmodel:\n  latent_dim: 4\n": "file.yaml: line 3: model is there twice",
}


@pytest.mark.parametrize("content", FILES)
def test_an_error_in_a_configuration_file_names_the_file(script, tmp_path, content):
    (tmp_path / "file.yaml").write_text(content)
    outcome = script("train.py", "--config", "file.yaml")
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: {FILES[content]}")


def test_a_configuration_file_that_is_no_text(script, tmp_path):
    (tmp_path / "file.yaml").write_bytes(b"\xff\xfe\x00")
    outcome = script("train.py", "--config", "file.yaml")
    assert outcome.status == 2
    assert outcome.err.startswith("error: file.yaml: 'utf-8' codec can't decode byte 0xff")


OWN_CHECKPOINT = "--trainer.callbacks ModelCheckpoint: a run has its own best.ckpt and last.ckpt; choose another"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--trainer.val_check_interval 1000", "`val_check_interval` (1000) must be less than or equal to"),
        (
            "--trainer.callbacks pytorch_lightning.callbacks.EarlyStopping --trainer.callbacks.monitor nothing",
            "Early stopping conditioned on metric `nothing` which is not available",
        ),
        ("--trainer.limit_train_batches 0.001", "You requested to check 0.001 of the `train_dataloader`"),
        ("--model.lr_schedule cosine --trainer.max_epochs -1", "lr_schedule cosine: ends with the training, which has"),
        ("--trainer.precision 16-true", "weights in torch.float16 do not train"),
        (
            "--trainer.callbacks StochasticWeightAveraging --trainer.callbacks.swa_lrs 0.1",
            "StochasticWeightAveraging: without effect",
        ),
        ("--trainer.callbacks BackboneFinetuning", "'LitVAE' object has no attribute 'backbone'"),
        ("--trainer.callbacks ModelCheckpoint --trainer.callbacks.filename best", OWN_CHECKPOINT),
        ("--trainer.callbacks ModelCheckpoint --trainer.callbacks.save_last true", OWN_CHECKPOINT),
        ("--trainer.callbacks BatchSizeFinder", "--trainer.callbacks BatchSizeFinder: changes a hyper-parameter"),
    ],
)
def test_what_lightning_cannot_take(script, tmp_path, options, message):
    outcome = script("train.py", *DIGITS, "--trainer.max_epochs", 1, *options.split())
    assert outcome.status == 1
    assert outcome.err.startswith(f"error: {message}")
    assert "EarlyStopping" in options or [*tmp_path.iterdir()] == []  # a start that is refused leaves no folder


@pytest.mark.parametrize("name", ["train.py", "test.py", "visualizations.py"])
@pytest.mark.parametrize("value", ["", "null", "#1"])  # as YAML reads them, all are none
def test_a_variable_that_is_empty(script, run_folder, name, value):
    for words in (["--ckpt_path", value], [f"--run_name={value}"]):
        outcome = script(name, *words)
        assert outcome.status == 2
        option = words[0].partition("=")[0]
        assert outcome.err.startswith(
            f"error: {option}: expected a value, got {value or 'none'}: is a variable empty?\n"
        )


@pytest.mark.parametrize("command", ["train.py --data Foo", "train.py", "test.py", "visualizations.py --foo"])
def test_a_wrong_input_to_a_process(process, tmp_path, command):
    outcome = process(*command.split())
    assert outcome.status in (1, 2)
    assert outcome.err.startswith("error: ")
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


def test_a_folder_that_cannot_be_written(script, run_folder, tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    outcome = script("visualizations.py", "--output_dir", "taken")
    assert outcome.status == 1
    assert outcome.err == "error: taken: File exists: it is a file; a folder is needed\n"
    shutil.rmtree(tmp_path / "lightning_logs")
    (tmp_path / "lightning_logs").write_text("a file, not a folder")
    outcome = script("train.py", *DIGITS)
    assert outcome.status == 1
    assert outcome.err == "error: lightning_logs: File exists: it is a file; a folder is needed\n"


def test_figures_that_may_not_be_written(script, run_folder, monkeypatch):
    def denied(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    for name in ("open", "unlink"):
        monkeypatch.setattr(f"pathlib.Path.{name}", denied)
    outcome = script("visualizations.py", "--figures", "samples", "--output_dir", "drawn")
    assert outcome.status == 1
    path = "drawn/digits_samples_latent_variables=2.png"
    assert outcome.err == f"error: {path}: Permission denied: choose a folder that can be written to\n"


def test_a_disk_that_cannot_be_written(script, tmp_path, monkeypatch):
    def read_only(path, *args, **kwargs):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr("pathlib.Path.mkdir", read_only)
    outcome = script("train.py", *DIGITS, "--trainer.max_epochs", 1)
    assert outcome.status == 1
    assert outcome.err == "error: lightning_logs: Read-only file system: choose a folder that can be written to\n"
    assert [*tmp_path.iterdir()] == []


def test_a_run_folder_that_vanishes(process, tmp_path):
    """Told once, without a traceback from TensorBoard's thread, and no half of a folder is made in its place."""
    (tmp_path / "vanish.py").write_text(
        "import shutil\n"
        "from pytorch_lightning import Callback\n"
        "class Vanish(Callback):\n"
        "    def on_train_epoch_start(self, trainer, lit):\n"
        "        if trainer.current_epoch == 2:\n"
        "            shutil.rmtree(trainer.log_dir)\n"
    )
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.callbacks+", "vanish.Vanish"]
    options = ["--run_name", "gone", "--trainer.max_epochs", 9, *quiet]
    outcome = process("train.py", *DIGITS, *options, PYTHONPATH=str(tmp_path))
    assert outcome.status == 1
    assert outcome.err.count("\n") == 2
    assert "The run's folder lightning_logs/gone has vanished" in outcome.err
    assert [*(tmp_path / "lightning_logs").iterdir()] == []


def closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


FULL = "error: standard output: No space left on device: free some space\n"
OUTPUTS = {
    "full": (lambda: os.fdopen(os.open("/dev/full", os.O_WRONLY), "w"), 1, FULL),
    "closed": (closed_pipe, 141, ""),
}
OUTPUTS["none"] = (lambda: None, 0, "")


@pytest.mark.parametrize("output", OUTPUTS)
def test_standard_output_that_fails_ends_no_training(script, monkeypatch, output):
    """Nor another command: each one does its work, and its status says that its text was lost."""
    stdout, status, message = OUTPUTS[output]
    for command in (["train.py", *DIGITS, "--trainer.max_epochs", 2], ["vae/runs/__main__.py"]):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stdout())
            outcome = script(*command)
        assert (outcome.status, outcome.err) == (status, message)
    assert torch.load("lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)["epoch"] == 1


IMPORTING = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            open("importing", "w").close()
            time.sleep(60)
sys.meta_path.insert(0, Slow())
"""


@pytest.mark.parametrize("name", ["train.py", "test.py", "visualizations.py"])
def test_ctrl_c_during_the_imports(tmp_path, name):
    (tmp_path / "sitecustomize.py").write_text(IMPORTING)
    with (tmp_path / "err").open("wb") as err:
        environ = os.environ | {"PYTHONPATH": str(tmp_path)}
        process = subprocess.Popen([sys.executable, PROJECT / name], stderr=err, env=environ)
    wait_for((tmp_path / "importing").exists)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert (tmp_path / "err").read_text() == ""


DATA = """
import time
from datamodules import Digits
def load(self):
    open("loading", "w").close()
    time.sleep(60)
Digits.load = load
"""


@pytest.mark.parametrize("name", ["test.py", "visualizations.py"])
def test_ctrl_c_in_an_evaluation(start, run_folder, tmp_path, name):
    (tmp_path / "patch.py").write_text(
        f"{DATA}\nimport runpy\nrunpy.run_path({str(PROJECT / name)!r}, run_name='__main__')"
    )
    run = start(tmp_path / "patch.py", PYTHONPATH=str(PROJECT))
    wait_for((tmp_path / "loading").exists)
    run.send_signal(signal.SIGINT)
    stopped = run.result(timeout=60)
    assert (stopped.status, stopped.err) == (130, "error: interrupted\n")
