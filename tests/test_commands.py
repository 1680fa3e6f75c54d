"""The three scripts: from end to end as processes of their own, and what each says to a wrong input."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from conftest import PROJECT
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vae.figures import FIGURES

DIGITS = ("--data", "Digits", "--model.hidden_dims", "32")


@pytest.fixture
def run_folder(script, tmp_path):
    """A trained run, with a 2-D latent space, in lightning_logs/version_0."""
    assert script("train.py", *DIGITS, "--trainer.max_epochs", 2).status == 0
    return tmp_path / "lightning_logs" / "version_0"


def test_train_test_and_draw_from_end_to_end(process, tmp_path):
    trained = process("train.py", *DIGITS, "--trainer.max_epochs", "3", "--run_name", "mine")
    assert (trained.status, trained.err) == (0, "")
    report = trained.out.splitlines()
    best = re.fullmatch(r"Best +validation ELBO (-\d+\.\d\d) nats per picture, of a cross-entropy", report[-4])
    assert "lightning_logs/mine" in report[-6]
    assert re.fullmatch(r"Trained +3 epochs, this time in 0 min \d+ s", report[-5])
    commands = [line.removeprefix("Next").strip() for line in report[-3:]]
    assert commands == ["python3 test.py", "python3 visualizations.py", "tensorboard --logdir lightning_logs"]
    told = [line.replace("\x1b[A", "").strip() for line in report[:-6]]
    assert all(line.startswith(("Epoch ", "Training", "Validation")) for line in told if line)  # bars, and no tips
    run = tmp_path / "lightning_logs" / "mine"
    names = sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
    projector = [f"00036/posterior_means/{name}" for name in ("metadata.tsv", "sprite.png", "tensors.tsv")]
    assert [name for name in names if "tfevents" not in name] == [
        *projector,
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "config.yaml",
        *[f"frames/00000{epoch}.png" for epoch in (1, 2, 3)],
        "hparams.yaml",
        "projector_config.pbtxt",
    ]

    tested = process("test.py", "--split", "val")
    assert (tested.status, tested.err) == (0, "")
    assert "lightning_logs/mine/checkpoints/best.ckpt" in tested.out
    assert "nats per picture" in tested.out
    metrics = json.loads((run / "test_metrics.json").read_text())
    assert metrics["split"] == "val"
    assert f"{metrics['elbo']:.2f}" == best[1]  # what training reported

    drawn = process("visualizations.py")
    assert (drawn.status, drawn.err) == (0, "")
    kinds = {name: "gif" if name == "training_film" else "png" for name in FIGURES}
    names = [f"digits_{name}_latent_variables=2.{kind}" for name, kind in kinds.items()]
    assert sorted(path.name for path in (tmp_path / "visualization_imgs").iterdir()) == sorted(names)
    assert drawn.out.splitlines()[1:] == [f"visualization_imgs/{name}" for name in names]
    for name in names:
        with Image.open(tmp_path / "visualization_imgs" / name) as image:
            image.load()
            assert min(image.size) > 200


def test_test_metrics_are_complete_and_the_same_on_a_copied_checkpoint(script, run_folder, tmp_path):
    assert script("test.py", "--num_samples", 20).status == 0
    metrics = json.loads((run_folder / "test_metrics.json").read_text())
    assert set(metrics) == {
        *("split", "measure", "num_samples", "num_images", "elbo", "reconstruction", "kl", "log_marginal"),
        *("log_marginal_stderr", "log_marginal_mc_error", "bits_per_dim", "bounds", "kl_per_dimension"),
        *("active_units", "mse", "psnr", "ssim"),
    }
    assert (metrics["measure"], metrics["bits_per_dim"]) == ("cross-entropy", None)
    assert sum(metrics["kl_per_dimension"]) == pytest.approx(metrics["kl"], rel=1e-5)
    assert metrics["bounds"] == {"20": metrics["log_marginal"]}
    assert (metrics["split"], metrics["num_samples"], metrics["num_images"]) == ("test", 20, 300)
    assert metrics["elbo"] < metrics["log_marginal"] < 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(run_folder / "checkpoints" / "best.ckpt", elsewhere / "copy.ckpt")
    shutil.rmtree(tmp_path / "lightning_logs")
    assert script("test.py", "--num_samples", 20, "--ckpt_path", elsewhere / "copy.ckpt").status == 0
    assert json.loads((elsewhere / "test_metrics.json").read_text()) == metrics


def test_options_reach_model_trainer_and_data(script, tmp_path):
    options = ["--model.latent_dim", 3, "--model.hidden_dims", "[16,8]", "--model.activation", "tanh"]
    options += ["--model.likelihood", "gaussian", "--model.optimizer", "Adagrad", "--model.learning_rate", 0.02]
    options += [
        "--trainer.precision",
        "64-true",
        "--data.batch_size",
        50,
        "--seed_everything",
        7,
        "--trainer.max_epochs",
        1,
    ]
    assert script("train.py", "--data", "Digits", *options).status == 0
    checkpoint = torch.load("lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)
    model, data = checkpoint["hyper_parameters"], checkpoint["datamodule_hyper_parameters"]
    assert (model["latent_dim"], model["hidden_dims"], model["activation"]) == (3, (16, 8), "tanh")
    assert (model["likelihood"], model["optimizer"], model["learning_rate"]) == ("gaussian", "Adagrad", 0.02)
    assert (data["batch_size"], data["seed"], model["seed"]) == (50, 7, 7)
    assert checkpoint["global_step"] == 24


def test_a_configuration_file_repeats_a_run(script, tmp_path):
    script("train.py", *DIGITS, "--trainer.max_epochs", 2, "--run_name", "mine")
    run_folder = tmp_path / "lightning_logs" / "mine"
    config = yaml.safe_load((run_folder / "config.yaml").read_text())
    assert config["model"]["hidden_dims"] == 32
    assert script("train.py", "--config", run_folder / "config.yaml").status == 0
    weights = [
        torch.load(f"lightning_logs/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("mine", "version_0")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_resuming_goes_on_in_the_same_folder_to_the_same_weights(script, tmp_path):
    script("train.py", *DIGITS, "--trainer.max_epochs", 3, "--run_name", "whole")
    script("train.py", *DIGITS, "--trainer.max_epochs", 2, "--run_name", "parts")
    resumed = script("train.py", "--ckpt_path", "last", "--run_name", "parts", "--trainer.max_epochs", 3)
    assert resumed.status == 0
    assert "lightning_logs/parts" in resumed.out
    weights = [
        torch.load(f"lightning_logs/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "parts")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert sorted(path.name for path in (tmp_path / "lightning_logs").iterdir()) == ["parts", "whole"]
    names = sorted(path.name for path in (tmp_path / "lightning_logs" / "parts" / "checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt"]


def test_own_pictures_from_end_to_end(script, tmp_path):
    (tmp_path / "album").mkdir()
    for i in range(20):
        Image.new("RGB", (9, 7), (10 * i, 0, 0)).save(tmp_path / "album" / f"{i}.png")
    options = ["--data", "ImageFolder", "--data.data_dir", "album", "--data.size", "[7,9]", "--trainer.max_epochs", 1]
    assert script("train.py", *options, "--model.latent_dim", 4).status == 0
    (tmp_path / "album").rename(tmp_path / "moved")
    assert script("test.py", "--data_dir", "moved").status == 0
    drawn = script("visualizations.py", "--data_dir", "moved", "--split", "all")
    assert drawn.status == 0
    assert drawn.err.splitlines() == [
        "Not drawn: reconstruction_by_class needs labels; these pictures have none",
        "Not drawn: learned_manifold needs a latent space of 1 or 2 dimensions; this model has 4",
    ]
    assert {path.name.split("_latent_variables=4.")[0] for path in (tmp_path / "visualization_imgs").iterdir()} == {
        f"moved_{name}" for name in FIGURES if name not in ("reconstruction_by_class", "learned_manifold")
    }


def test_the_options_of_figures_reach_them(script, run_folder, tmp_path):
    def sizes(*options):
        assert script("visualizations.py", "--figures", "samples", "learned_manifold", *options).status == 0
        pictures = (
            tmp_path / "visualization_imgs" / f"digits_{name}_latent_variables=2.png"
            for name in ("samples", "learned_manifold")
        )
        return [Image.open(path).size for path in pictures]

    (width, height), manifold = sizes()
    assert sizes("--num_samples", 32) == [(width, height - 4 * 74), manifold]
    assert sizes("--num_samples", 32, "--grid_width", 16)[0] == (16 * 74 + 2 + 40, height - 6 * 74)
    assert sizes("--grid_size", 12, "--grid", "linspace", "--extent", 2)[1] == (manifold[0] - 400, manifold[1] - 400)


def test_the_figures_show_the_split_that_is_asked_for(script, run_folder, tmp_path):
    seen = {}
    for split in ("train", "val", "test", "all"):
        assert script("visualizations.py", "--figures", "latent_scatter", "--split", split).status == 0
        seen[split] = (tmp_path / "visualization_imgs/digits_latent_scatter_latent_variables=2.png").read_bytes()
    assert len(set(seen.values())) == 4


def test_runs_are_compared_without_their_data(script, tiny_punks):
    for name in ("one", "two"):
        script(
            "train.py", "--data", "CryptoPunks", "--model.hidden_dims", 8, "--trainer.max_epochs", 2, "--run_name", name
        )
    (tiny_punks / "punks.png").unlink()
    drawn = script(
        "visualizations.py", "--figures", "learning_curves", "training_film", "samples", "--runs", "one", "two"
    )
    assert (drawn.status, drawn.err) == (0, "")
    assert drawn.out.splitlines() == [
        "Drawing from lightning_logs/one/checkpoints/best.ckpt",
        "visualization_imgs/punks_learning_curves_latent_variables=2.png",
        "visualization_imgs/punks_training_film_latent_variables=2.gif",
        "visualization_imgs/punks_samples_latent_variables=2.png",
    ]
    lost = script("visualizations.py", "--figures", "learning_curves", "--runs", "one", "three")
    assert (lost.status, lost.err.splitlines()[0]) == (1, "error: There is no checkpoint in lightning_logs/three.")


def test_a_test_enters_its_result_beside_the_run(script, run_folder, tmp_path):
    for _ in range(2):
        script("test.py")
    found = json.loads((run_folder / "test_metrics.json").read_text())
    events = EventAccumulator(str(run_folder / "test")).Reload()
    for name in ("elbo", "log_marginal"):
        assert [event.value for event in events.Scalars(f"test/{name}")] == pytest.approx([found[name]] * 2)
    before = sorted(path.name for path in (run_folder / "test").iterdir())
    script("test.py", "--split", "val")
    assert sorted(path.name for path in (run_folder / "test").iterdir()) == before
    (tmp_path / "apart").mkdir()
    (run_folder / "checkpoints" / "best.ckpt").rename(tmp_path / "apart" / "model.ckpt")
    assert script("test.py", "--ckpt_path", "apart/model.ckpt").status == 0
    assert sorted(path.name for path in (tmp_path / "apart").iterdir()) == ["model.ckpt", "test_metrics.json"]


def test_nothing_drawn_is_an_error(script):
    script("train.py", *DIGITS, "--trainer.max_epochs", 1, "--model.latent_dim", 3)
    drawn = script("visualizations.py", "--figures", "learned_manifold")
    assert drawn.status == 1
    assert "error: none of the figures applies to this model" in drawn.err


def test_exact_punks_from_end_to_end(script, tiny_punks, tmp_path):
    """A categorical likelihood, whose palette the data module tells."""
    options = ["--model.likelihood", "categorical", "--model.network", "conv", "--model.channels", "[4,8]"]
    assert script("train.py", "--data", "CryptoPunks", *options, "--trainer.max_epochs", 1).status == 0
    tested = script("test.py", "--num_samples", "1,10")
    assert tested.status == 0
    assert "log-likelihood" in tested.out
    metrics = json.loads((tmp_path / "lightning_logs" / "version_0" / "test_metrics.json").read_text())
    assert metrics["bits_per_dim"] == pytest.approx(-metrics["bounds"]["10"] / 1728 / 0.6931472, rel=1e-5)
    assert metrics["bounds"]["1"] < metrics["bounds"]["10"] == metrics["log_marginal"]
    assert script("visualizations.py").status == 0
    with Image.open("visualization_imgs/punks_samples_latent_variables=2.png") as image:
        grid = image.crop((0, 50, *image.size))  # below the title
        shown = {colour for _, colour in grid.getcolors()} - {(255, 255, 255)}
    assert shown <= {(10 * i, i, 0) for i in range(12)} | {(0x63, 0x85, 0x96), (0x31, 0x42, 0x4B)}


@pytest.mark.parametrize("objective", ["iwae", "dreg"])
def test_the_importance_weighted_bound_from_end_to_end(script, objective):
    options = ["--model.objective", objective, "--model.num_samples", 5, "--trainer.max_epochs", 2]
    assert script("train.py", *DIGITS, *options).status == 0
    assert script("test.py", "--split", "val").status == 0


@pytest.mark.parametrize("name", ["train.py", "test.py", "visualizations.py"])
def test_help_names_the_options(script, name):
    shown = script(name, "--help")
    assert shown.status == 0
    expected = {
        "train.py": [
            "--model.latent_dim",
            "number of latent variables",
            "--trainer.max_epochs",
            "--run_name",
            "--ckpt_path",
        ],
        "test.py": ["--num_samples", "Importance samples", "--split", "--data_dir", "--devices"],
        "visualizations.py": [
            *["--figures", "learned_manifold", "--output_dir", "--split", "--runs", "--grid_size", "--tsne_points"],
            "How many samples there are",
        ],
    }
    assert [text for text in expected[name] if text not in shown.out] == []


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
    ("train.py --data ImageFolder", 2, "ImageFolder needs the folder of your pictures: --data.data_dir FOLDER"),
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


@pytest.mark.parametrize("name", ["test.py", "visualizations.py"])
@pytest.mark.parametrize("content", [b"no checkpoint", b""])
def test_a_checkpoint_that_is_none(script, tmp_path, name, content):
    (tmp_path / "broken.ckpt").write_bytes(content)
    outcome = script(name, "--ckpt_path", "broken.ckpt")
    assert outcome.status == 1
    assert outcome.err == "error: broken.ckpt cannot be read as a checkpoint: it is truncated, or something else.\n"


def test_resuming_from_a_truncated_checkpoint(script, run_folder):
    last = run_folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    outcome = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3)
    assert outcome.status == 1
    assert "last.ckpt cannot be read as a checkpoint" in outcome.err
    assert last.stat().st_size == 5000


def test_a_refused_resume_changes_nothing(script, run_folder):
    before = {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()}
    for option, value, begun in (
        ("--model.latent_dim", 5, 2),
        ("--model.learning_rate", 0.5, 0.001),
        ("--data.batch_size", 9, 100),
    ):
        outcome = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3, option, value)
        assert outcome.status == 1
        assert outcome.err.startswith(f"error: {option} is {value}, but the run began with {begun}.\n")
    for content in (torch.zeros(3), [1], None, {}, {"state_dict": {}}):
        torch.save(content, run_folder / "checkpoints" / "last.ckpt")
        outcome = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3)
        assert outcome.status == 1
        assert "is not a checkpoint that this project's train.py wrote" in outcome.err
    (run_folder / "checkpoints" / "last.ckpt").write_bytes(before[run_folder / "checkpoints" / "last.ckpt"])
    assert {path: path.read_bytes() for path in run_folder.rglob("*") if path.is_file()} == before


def test_a_cosine_schedule_ends_with_its_run(script):
    script("train.py", *DIGITS, "--trainer.max_epochs", 1, "--model.lr_schedule", "cosine")
    outcome = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert outcome.status == 1
    assert "A cosine schedule ends with its run, here after 1 epochs; it cannot go on to 2." in outcome.err


def test_a_moved_run_keeps_its_best_epoch(script, tmp_path, run_folder):
    """An epoch that is worse than the best so far, after the folder was renamed."""
    moved = run_folder.rename(run_folder.with_name("moved"))
    best = (moved / "checkpoints" / "best.ckpt").read_bytes()
    last = torch.load(moved / "checkpoints" / "last.ckpt", weights_only=True)
    last["state_dict"]["vae.likelihood.logits.0.bias"] += 5
    torch.save(last, moved / "checkpoints" / "last.ckpt")
    outcome = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 3)
    assert outcome.status == 0
    assert (moved / "checkpoints" / "best.ckpt").read_bytes() == best
    assert torch.load(moved / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 2


def test_only_best_and_last_are_looked_for(script, run_folder):
    other = run_folder.with_name("version_1") / "checkpoints"
    other.mkdir(parents=True)
    shutil.copy(run_folder / "checkpoints" / "best.ckpt", other / "epoch=4-step=190.ckpt")
    outcome = script("visualizations.py", "--figures", "samples")
    assert outcome.status == 0
    assert "version_0" in outcome.out


def test_a_split_without_pictures(script, tiny_mnist):
    script("train.py", "--data", "MNIST", "--data.val_size", 0, "--trainer.max_epochs", 1)
    for name in ("test.py", "visualizations.py"):
        outcome = script(name, "--split", "val")
        assert outcome.status == 1
        assert outcome.err == "error: MNIST has no val pictures, as it was split for this model.\n"


@pytest.mark.parametrize("name", ["test.py", "visualizations.py"])
def test_an_accelerator_that_is_not_there(script, run_folder, name):
    outcome = script(name, "--accelerator", "abacus")
    assert outcome.status == 1
    assert outcome.err.startswith("error: --accelerator abacus: ")


def test_a_run_name_that_is_taken(script, run_folder):
    outcome = script("train.py", *DIGITS, "--run_name", "version_0")
    assert outcome.status == 1
    assert "lightning_logs/version_0 exists already" in outcome.err


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


def test_the_readmes_python_works(tmp_path, monkeypatch):
    """The README's ten lines, run as they stand."""
    monkeypatch.syspath_prepend(PROJECT)
    (code,) = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})


def test_info_tells_what_a_model_is_without_its_data(script, tiny_punks):
    options = ["--model.latent_dim", 3, "--model.hidden_dims", 8, "--seed_everything", 5, "--trainer.max_epochs", 2]
    script("train.py", "--data", "CryptoPunks", *options)
    (tiny_punks / "punks.png").unlink()
    told = script("test.py", "--info")
    assert (told.status, told.err) == (0, "")
    lines = dict(re.split(r" {2,}", line, maxsplit=1) for line in told.out.splitlines())
    assert (lines["data set"], lines["epochs"], lines["--model.seed"]) == ("CryptoPunks", "2", "5")
    assert lines["--model.latent_dim"] == "3"
    assert lines["in all"] == f"{1728 * 8 + 8 + 2 * (8 * 3 + 3) + 3 * 8 + 8 + 8 * 1728 + 1728:,} parameters"
    assert re.fullmatch(r"-\d+\.\d{4} nats per picture", lines["best val/elbo"])
    assert lines["torch"] == torch.__version__.split("+")[0]


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_after_the_step_and_tells_how_to_go_on(tmp_path, signum, status):
    command = [sys.executable, str(PROJECT / "train.py"), *DIGITS, "--trainer.max_epochs", "100000"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        last = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
        wait_for(last.exists)
        run.send_signal(signum)
        told = run.communicate(timeout=60)[1]
    assert run.returncode == status
    name = signal.Signals(signum).name
    path = "lightning_logs/version_0/checkpoints/last.ckpt"
    pattern = rf"{name} stopped the run in epoch \d+, step \d+\.\nGo on with it: python3 train\.py --ckpt_path {path}\n"
    assert re.fullmatch(pattern, told)
    assert torch.load(last, weights_only=True)["global_step"] % 12 == 0  # a whole epoch's


def test_a_signal_before_the_first_checkpoint(tmp_path):
    options = ["--data", "Digits", "--data.batch_size", "1", "--model.hidden_dims", "3000"]
    command, pipe = [sys.executable, str(PROJECT / "train.py"), *options], subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True) as run:
        seen = ""
        while "Epoch 0" not in seen:
            seen += run.stdout.read(1)
        run.send_signal(signal.SIGTERM)
        told = run.communicate(timeout=60)[1]
    assert run.returncode == 143
    assert "before its first checkpoint: there is nothing to go on with" in told


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_at_once(tmp_path, monkeypatch, signum, status):
    """Also in the middle of a step that does not end."""
    (tmp_path / "endless.py").write_text(
        "import time\n"
        "from pathlib import Path\n"
        "from pytorch_lightning import Callback\n"
        "class Endless(Callback):\n"
        "    def on_train_batch_start(self, *_):\n"
        "        Path('begun').touch()\n"
        "        end = time.monotonic() + 1000\n"
        "        while time.monotonic() < end:\n"
        "            time.sleep(0.1)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = [sys.executable, str(PROJECT / "train.py"), *DIGITS, "--trainer.callbacks+", "endless.Endless"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        wait_for((tmp_path / "begun").exists)
        run.send_signal(signum)
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(timeout=0.5)
        run.send_signal(signum)
        assert run.wait(timeout=10) == status


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_good_checkpoint(script, tmp_path):
    assert script("train.py", *DIGITS, "--trainer.max_epochs", 1, "--run_name", "mad").status == 0
    checkpoints = tmp_path / "lightning_logs" / "mad" / "checkpoints"
    before = {path.name: path.read_bytes() for path in checkpoints.iterdir()}
    options = ["--data", "Digits", "--model.learning_rate", 1e30, "--model.likelihood", "gaussian"]
    outcome = script("train.py", *options, "--run_name", "wild", "--trainer.max_epochs", 2)
    assert outcome.status == 1
    assert re.search(r"error: The loss is not finite in epoch 1, from step \d+ on\.", outcome.err)
    assert "Try a smaller --model.learning_rate" in outcome.err
    assert not [*(tmp_path / "lightning_logs" / "wild").glob("checkpoints/*")]
    assert {path.name: path.read_bytes() for path in checkpoints.iterdir()} == before


def test_a_full_disk_leaves_the_checkpoint_that_was_there(script, run_folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in (run_folder / "checkpoints").iterdir()}

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    outcome = script("train.py", "--ckpt_path", "last", "--trainer.max_epochs", 4)
    assert outcome.status == 1
    assert outcome.err.startswith(
        "error: [Errno 28] No space left on device\nGo on with it: python3 train.py --ckpt_path"
    )
    assert {path.name: path.read_bytes() for path in (run_folder / "checkpoints").iterdir()} == before


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        outcome = process("train.py", *DIGITS, "--run_name", "gone", "--trainer.max_epochs", 9, *quiet)
    assert outcome.status == 1
    assert outcome.err.count("\n") == 2
    assert "The run's folder lightning_logs/gone has vanished" in outcome.err
    assert [*(tmp_path / "lightning_logs").iterdir()] == []
