"""A wrong input or a disk that fails ends in one clear message."""

import re
import shutil

import pytest
from helpers import DIGITS

WRONG = [
    ("train.py --data MNISTT", 2, "unknown data set 'MNISTT': choose one of MNIST, CryptoPunks, Digits, ImageFolder"),
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
    ("train.py --batch_size 3", 2, "unknown option --batch_size\nThere are: .*--run_name"),
    ("train.py --latent_dim 3", 2, "unknown option --latent_dim\nNearest: --model.latent_dim"),
    ("train.py --data ImageDataModule", 2, "unknown data set 'ImageDataModule': choose one of MNIST"),
    ("train.py --data Digits --trainer.logger false", 2, "trainer.logger: a run always writes into its folder"),
    ("train.py --model.latent_dim 1000000000000", 2, "error: "),
    ("train.py --ckpt_path last --run_name /nowhere", 1, "A run's name is that of a folder in lightning_logs"),
    ("train.py --model.latent_dim 0", 2, "latent_dim: expected a whole number of at least 1, got 0"),
    ("train.py --model.latent_dim two", 2, "model.latent_dim: Expected a int. Got value: two"),
    (
        "train.py --model.hidden_dims [4,x]",
        2,
        r"model.hidden_dims: expected int or tuple\[int, ...\], got \['4', 'x'\]|hidden_dims",
    ),
    (
        "train.py --model.likelihood poisson",
        2,
        "unknown likelihood 'poisson': choose one of bernoulli, categorical, continuous",
    ),
    ("train.py --model.activation gelu", 2, "unknown activation 'gelu': choose one of relu, tanh"),
    ("train.py --model.optimizer adam", 2, "unknown optimizer 'adam': choose one of .*Adam"),
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
    ("train.py --data MNIST --data.val_size 60000", 2, "val_size: expected 0 to 59,999"),
    ("train.py --data ImageFolder", 2, "ImageFolder needs the folder of your images: --data.data_dir FOLDER"),
    ("train.py --data ImageFolder --data.data_dir nowhere", 1, "There is no folder nowhere"),
    ("train.py --config nowhere.yaml", 2, "nowhere.yaml"),
    ("train.py --ckpt_path last", 1, "(?s)There is no checkpoint in lightning_logs.*Train a model first"),
    ("train.py --ckpt_path nowhere.ckpt", 1, "There is no checkpoint nowhere.ckpt"),
    (
        "train.py",
        1,
        "(?s)MNIST could not be downloaded.*Put train-images-idx3-ubyte, .* into data/MNIST/raw, or use --data Digits",
    ),
    (
        "train.py --data CryptoPunks",
        1,
        "(?s)punks.png could not be downloaded.*Put punks.png into data, or use --data Digits",
    ),
    ("train.py --trainer.accumulate_grad_batches 0", 2, "accumulate_grad_batches: expected a whole number of at least"),
    ("train.py --trainer.check_val_every_n_epoch 0", 2, "check_val_every_n_epoch: expected a whole number of at least"),
    ("test.py", 1, "(?s)There is no checkpoint in lightning_logs.*Train a model first, python3 train.py"),
    ("test.py --ckpt_path nowhere.ckpt", 1, "There is no checkpoint nowhere.ckpt: name one that exists"),
    ("test.py --split train", 2, "split: expected one of 'test', 'val'. Got value: train"),
    ("test.py --samples 5", 2, "unknown option --samples\nNearest: --num_samples"),
    ("test.py --num_samples 0", 2, "expected a number of at least 1, or rising ones as in 1,10,100; got 0"),
    ("visualizations.py", 1, "There is no checkpoint in lightning_logs"),
    ("visualizations.py --split foo", 2, "split: expected one of 'train', 'val', 'test', 'all'. Got value: foo"),
    ("visualizations.py --grid_size 0", 2, "grid_size: .* 0 does not conform to restriction v>0"),
    ("visualizations.py --runs a/b", 1, "A run's name is that of a folder in lightning_logs, not a path; got a/b"),
    (
        "visualizations.py --figures mona_lisa",
        2,
        r"invalid choice: 'mona_lisa' \(choose from 'reconstruction', .*'training_film'\)",
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--trainer.val_check_interval 1000", "`val_check_interval` (1000) must be less than or equal to"),
        (
            "--trainer.callbacks pytorch_lightning.callbacks.EarlyStopping --trainer.callbacks.monitor nothing",
            "Early stopping conditioned on metric `nothing` which is not available",
        ),
    ],
)
def test_what_lightning_cannot_take(script, options, message):
    outcome = script("train.py", *DIGITS, "--trainer.max_epochs", 1, *options.split())
    assert outcome.status == 1
    assert outcome.err.startswith(f"error: {message}")


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
    assert re.search(r"error: .*taken", outcome.err)
    shutil.rmtree(tmp_path / "lightning_logs")
    (tmp_path / "lightning_logs").write_text("a file, not a folder")
    outcome = script("train.py", *DIGITS)
    assert outcome.status == 1
    assert re.search(r"error: .*lightning_logs", outcome.err)


def test_a_disk_that_cannot_be_written(script, tmp_path, monkeypatch):
    def read_only(path, *args, **kwargs):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr("pathlib.Path.mkdir", read_only)
    outcome = script("train.py", *DIGITS, "--trainer.max_epochs", 1)
    assert outcome.status == 1
    assert outcome.err == "error: [Errno 30] Read-only file system: 'lightning_logs'\n"
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
