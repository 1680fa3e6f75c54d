"""The model and LitVAE among other tools: any DataLoader, any logger, predictions, weights of another run."""

import csv
import logging
import signal
import threading
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import DIGITS, GREY
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
)

import vae
from datamodules import DATASETS, Digits, ImageDataModule
from vae import LitVAE, runs
from vae.cli import TrainCLI, user_facing_errors
from vae.evaluation import evaluation_noise
from vae.loaders import as_block
from vae.metrics import ImageTable
from vae.networks import MLPDecoder

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


@pytest.fixture
def digits():
    data = Digits()
    return data.images("train"), data.labels("train")


@pytest.mark.parametrize("labelled", [False, True])
def test_a_plain_data_loader_trains_like_a_plain_loop(digits, labelled):
    images, labels = digits[0][:70], digits[1][:70]
    dataset = TensorDataset(images, labels) if labelled else [*images]
    seed_everything(0)
    lit = LitVAE(image_shape=(1, 8, 8), hidden_dims=16)
    before = {name: value.clone() for name, value in lit.state_dict().items()}
    trainer = Trainer(max_epochs=2, num_sanity_val_steps=0, **QUIET)
    loader = DataLoader(dataset, batch_size=30)
    trainer.fit(lit, loader, DataLoader(dataset, batch_size=50))
    assert trainer.global_step == 6
    assert trainer.callback_metrics["val/elbo"] < 0

    again = LitVAE(image_shape=(1, 8, 8), hidden_dims=16)
    again.load_state_dict(before)
    optimizer = torch.optim.Adam(again.parameters(), fused=True)
    for epoch in range(2):
        for batch_idx, x in enumerate(images.split(30)):
            again._trainer = type("At", (), {"current_epoch": epoch, "global_rank": 0})()
            eps = again.training_noise(len(x), batch_idx).eps
            loss = -again.vae.elbo(x, eps=eps).elbo.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, lit.state_dict()[name])


def test_half_precision_takes_the_images_of_a_plain_data_loader(digits):
    """The Trainer casts them before any hook; the model has refused such images."""
    images, lit = digits[0][:60].round(), LitVAE(image_shape=(1, 8, 8), hidden_dims=16)  # binary: bf16 holds them
    trainer = Trainer(max_epochs=1, precision="bf16-true", num_sanity_val_steps=0, **QUIET)
    trainer.fit(lit, DataLoader(images, 30), DataLoader(images, 30))
    (found,) = trainer.test(lit, DataLoader(images, 25), verbose=False)
    q_z = lit.vae.encode(images)
    eps = torch.cat([*evaluation_noise(torch.arange(60), 1, 2)])
    assert found["test/elbo"] == pytest.approx(lit.vae.elbo(images, eps=eps, q_z=q_z).elbo.mean().item(), abs=0.05)


def test_images_and_their_numbers_are_on_one_device():
    seen = ImageTable()
    seen.update({"index": torch.arange(4)})
    block = as_block(torch.empty(3, 1, 8, 8, device="meta"), vae.VAE(image_shape=(1, 8, 8)), seen)
    assert block.index.device == block.images.device


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ({"image": torch.rand(2, 1, 8, 8), "label": torch.zeros(2)}, "dict of image, label"),
        ((3, torch.rand(2, 1, 8, 8)), "tuple of int, Tensor"),
        ([np.zeros((2, 1, 8, 8)), 3], "list of ndarray, int"),
        (np.zeros((2, 1, 8, 8)), "ndarray"),
        ([], "list"),
        ("images", "str"),
    ],
)
def test_a_batch_that_does_not_begin_with_images(batch, found):
    message = rf"batch: expected a tensor of images .*, or a tuple or list that begins with one, got {found}; "
    with pytest.raises(ValueError, match=message):
        as_block(batch, vae.VAE(image_shape=(1, 8, 8)), ImageTable())


class Stream(IterableDataset):
    """Images without a number of them."""

    def __init__(self, images):
        self.images = images

    def __iter__(self):
        yield from self.images


def test_a_loader_without_images_says_so(digits):
    lit, none = LitVAE(image_shape=(1, 8, 8), hidden_dims=4), DataLoader(Stream([]), 10)
    some = DataLoader(digits[0][:20], 10)
    once = (batch for batch in some)  # the second epoch gets none
    for use in (
        lambda trainer: trainer.fit(lit, none),
        lambda trainer: trainer.fit(lit, some, none),
        lambda trainer: trainer.fit(lit, once),
        lambda trainer: trainer.test(lit, none),
    ):
        with pytest.raises(ValueError, match="expected one or more images, got none: the DataLoader has given no batc"):
            use(Trainer(max_epochs=2, num_sanity_val_steps=0, **QUIET))


def test_several_training_loaders_are_refused(digits):
    """A step would take the images of the first alone."""
    trainer, loader = Trainer(max_epochs=1, num_sanity_val_steps=0, **QUIET), DataLoader(digits[0], 10)
    for loaders in ([loader, loader], {"a": loader}):
        with pytest.raises(MisconfigurationException, match="expected one training loader, got a .*ConcatDataset"):
            trainer.fit(LitVAE(image_shape=(1, 8, 8), hidden_dims=4), loaders)
    assert trainer.global_step == 0


TWENTY = torch.arange(20)


@pytest.mark.parametrize(
    ("sampling", "limit", "counted"),
    [
        ({}, None, 30),
        ({"shuffle": True}, None, 30),
        ({"shuffle": True}, 2, 30),
        ({"shuffle": True, "drop_last": True}, None, 30),
        ({}, 2, None),  # always the same twenty
        ({"sampler": SubsetRandomSampler(TWENTY)}, None, None),
        ({"sampler": RandomSampler(range(30), replacement=True, num_samples=90)}, None, None),
        ({"batch_sampler": BatchSampler(SubsetRandomSampler(TWENTY), 10, False)}, None, None),
        ({"batch_size": None}, None, None),  # its items are batches
    ],
)
def test_the_weights_prior_counts_the_images_that_a_loader_goes_through(digits, sampling, limit, counted):
    images = digits[0][:30]
    if "batch_size" in sampling:
        images = images.split(10)
    elif "batch_sampler" not in sampling:
        sampling = sampling | {"batch_size": 10}
    trainer = Trainer(max_epochs=1, limit_train_batches=limit, num_sanity_val_steps=0, **QUIET)
    lit = LitVAE(image_shape=(1, 8, 8), hidden_dims=4, weight_prior=True)
    refused = pytest.raises(MisconfigurationException, match="weight_prior: needs the number .*, or a sampler that lea")
    with nullcontext() if counted else refused:
        trainer.fit(lit, DataLoader(images, **sampling))
    if counted:
        assert trainer.optimizers[0].param_groups[0]["weight_decay"] == pytest.approx(1 / counted)
    assert trainer.global_step or not counted


def test_a_checkpoint_of_a_script_of_ones_own(digits, script, tmp_path):
    """Also where its options were NumPy's numbers, as of a sweep."""
    sweep = {"latent_dim": np.int64(3), "learning_rate": np.float64(0.01)}
    lit = LitVAE(image_shape=(1, 8, 8), hidden_dims=4, likelihood="categorical", palette=GREY, **sweep)
    trainer = Trainer(**QUIET)
    trainer.strategy.connect(lit)
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    with pytest.raises(runs.RunError, match="vae.LitVAE, its load_from_checkpoint reads it"):
        vae.load_run("mine.ckpt", DATASETS)
    assert script("test.py", "--ckpt_path", "mine.ckpt").err.startswith("error: mine.ckpt does not say which data")
    again = LitVAE.load_from_checkpoint("mine.ckpt", weights_only=True)
    torch.testing.assert_close(again.state_dict(), lit.state_dict())


def process_state():
    """What a command may change of the process that it runs in."""
    names = ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.profilers")
    signals = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    hooks = [warnings.formatwarning, warnings.showwarning, threading.excepthook]
    return [*warnings.filters], hooks, signals, [logging.getLogger(name).level for name in names]


@pytest.mark.parametrize("in_a_thread", [False, True])
def test_the_train_command_from_python_leaves_the_process_as_it_was(in_a_thread):
    done = []

    def train():
        with user_facing_errors():
            options = ["--data", "Digits", "--model.hidden_dims", "4", "--trainer.fast_dev_run", "true"]
            cli = TrainCLI(ImageDataModule, DATASETS, options)
            cli.fit()
            done.append(cli.trainer.global_step)

    before = process_state()
    if in_a_thread:
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
    else:
        train()
    assert len(done) == 1
    assert process_state() == before


def test_prediction_and_forward(digits):
    images = digits[0][:25]
    lit = LitVAE(image_shape=(1, 8, 8), hidden_dims=16).eval()
    found = Trainer(**QUIET).predict(lit, DataLoader(images, batch_size=10))
    mean, scale, log_marginal = (
        torch.cat([part[name] for part in found]) for name in ("mean", "scale", "log_marginal")
    )
    q_z = lit.vae.encode(images)
    torch.testing.assert_close(mean, q_z.mean)
    torch.testing.assert_close(scale, q_z.stddev)
    assert (log_marginal - lit.vae.log_marginal(images, 5_000)).abs().mean() < 0.5
    torch.testing.assert_close(lit(images), lit.vae.generate(q_z.mean))
    data = Digits(batch_size=10)
    assert sum(len(part["mean"]) for part in Trainer(**QUIET).predict(lit, data)) == 300


def test_load_run_gives_model_and_data(script):
    script("train.py", *DIGITS, "--trainer.max_epochs", 1, "--run_name", "mine")
    model, data = vae.load_run("mine", DATASETS)
    assert isinstance(model, vae.VAE)
    assert model.reconstruct(data.images("test", 3)).shape == (3, 1, 8, 8)


def test_a_further_logger_gets_the_same_values(script):
    logger = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "csv"]
    done = script("train.py", *DIGITS, "--trainer.max_epochs", 2, "--run_name", "mine", *logger)
    assert done.status == 0, done.err
    with Path("csv/mine/version_0/metrics.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert all(value for row in rows for value in row.values())  # a row an epoch, without holes
    elbo = [float(row["val/elbo"]) for row in rows]
    assert elbo == pytest.approx([*runs.read_history(Path("lightning_logs/mine"))["val/elbo"].values()])
    assert runs.best_checkpoint(Path("lightning_logs/mine")).exists()


def test_no_number_depends_on_how_a_data_loader_batches(digits, recwarn):
    lit = LitVAE(image_shape=(1, 8, 8), hidden_dims=16)
    images = digits[0][:25]
    found = []
    for batch_size in (25, 10, 7):
        (metrics,) = Trainer(**QUIET).test(lit, DataLoader(images, batch_size), verbose=False)
        assert lit.test_columns["index"].tolist() == [*range(25)]
        predicted = Trainer(**QUIET).predict(lit, DataLoader(images, batch_size))
        found.append((metrics["test/elbo"], torch.cat([part["log_marginal"] for part in predicted])))
    for elbo, log_marginal in found[1:]:
        assert elbo == pytest.approx(found[0][0], abs=1e-4)
        torch.testing.assert_close(log_marginal, found[0][1], atol=1e-4, rtol=0)
    assert not [each for each in recwarn if "self.log" in str(each.message)]


@pytest.mark.parametrize("scaled", [lambda x: 255 * x, lambda x: 2 * x - 1], ids=["to 255", "from -1"])
def test_values_of_other_scales_are_refused(digits, scaled):
    images, lit = digits[0][:20], LitVAE(image_shape=(1, 8, 8), hidden_dims=16)
    trainer = Trainer(max_epochs=1, num_sanity_val_steps=0, **QUIET)
    with pytest.raises(ValueError, match=r"values in \[0, 1\]"):
        trainer.fit(lit, DataLoader(scaled(images), 10))
    with pytest.raises(ValueError, match=r"values in \[0, 1\]"):
        trainer.fit(lit, DataLoader(images, 10), DataLoader(scaled(images), 10))


def test_mlflow_on_a_local_file_store(script, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = ["--trainer.logger", "MLFlowLogger", "--trainer.logger.save_dir", "mlruns"]
    done = script("train.py", *DIGITS, "--trainer.max_epochs", 2, "--run_name", "mine", *logger)
    assert done.status == 0, done.err
    (path,) = Path("mlruns").rglob("val/elbo")
    elbo = [float(line.split()[1]) for line in path.read_text().splitlines()]
    assert elbo == pytest.approx([*runs.read_history(Path("lightning_logs/mine"))["val/elbo"].values()])


def test_a_run_can_start_from_the_weights_of_another(script):
    script("train.py", *DIGITS, "--trainer.max_epochs", 1, "--run_name", "first")
    options = ["--model.objective", "iwae", "--model.learning_rate", "1e-12", "--trainer.max_epochs", 1]
    options += ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "csv"]
    done = script("train.py", *DIGITS, *options, "--run_name", "second", "--init_from", "first")
    assert done.status == 0, done.err
    old, new = (
        runs.read_checkpoint(runs.last_checkpoint(Path("lightning_logs", name)))["state_dict"]
        for name in ("first", "second")
    )
    for name, value in old.items():
        torch.testing.assert_close(new[name], value, atol=1e-6, rtol=0)
    own = "lightning_logs/second/config.yaml"  # which names a logger's class: no resume reads it by itself
    resumed = script("train.py", "--config", own, "--ckpt_path", "second", "--trainer.max_epochs", 2)
    assert resumed.status == 0, resumed.err
    assert "2 in all" in resumed.out


def test_weights_of_other_sizes_are_named(script):
    script("train.py", *DIGITS, "--trainer.max_epochs", 1, "--run_name", "first")
    done = script("train.py", *DIGITS, "--model.latent_dim", 3, "--init_from", "first")
    assert done.status == 1
    assert "size mismatch for vae.posterior.mean.weight: copying a param with shape torch.Size([2, 32])" in done.err
    both = script("train.py", "--init_from", "first", "--ckpt_path", "last")
    assert both.err.startswith("error: --init_from is first, but the run began with None.\n")


@pytest.mark.parametrize(
    "weights",
    [
        {"weight": torch.zeros(2, device="meta")},
        {"weight": torch.eye(2).to_sparse()},
        {"weight": torch.zeros(2, dtype=torch.complex64)},
        {"\x1b[31m": torch.zeros(2)},
        {"weight": 3},
        {3: torch.zeros(2)},
        [torch.zeros(2)],
    ],
    ids=str,
)
def test_untrusted_weights_are_refused(tmp_path, weights):
    torch.save({"state_dict": weights, "hyper_parameters": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(runs.RunError, match="is not a checkpoint that this project's train.py wrote") as caught:
        runs.init_weights(LitVAE(image_shape=(1, 8, 8)), Digits(), tmp_path / "foreign.ckpt")
    assert "\x1b" not in str(caught.value)


def test_a_logger_that_fails_leaves_no_run(script):
    Path("file").touch()
    logger = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "file/csv"]
    done = script("train.py", *DIGITS, "--trainer.max_epochs", 1, "--run_name", "mine", *logger)
    assert done.status == 1
    assert done.err.startswith("error: --trainer.logger CSVLogger: ")
    assert not Path("lightning_logs/mine").exists()


def test_weights_that_are_whole_numbers_are_taken_too(tmp_path):
    def model():
        encoder = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64))  # which counts its batches
        encoder.out_features = 64
        lit = LitVAE(image_shape=(1, 8, 8))
        lit.vae = vae.VAE(image_shape=(1, 8, 8), hidden_dims=64, network=(encoder, MLPDecoder))
        return lit

    first, second = model(), model()
    first.vae.encoder[1].num_batches_tracked += 3
    torch.save({"state_dict": first.state_dict(), "hyper_parameters": {}}, tmp_path / "first.ckpt")
    runs.init_weights(second, Digits(), tmp_path / "first.ckpt")
    assert second.vae.encoder[1].num_batches_tracked == 3


def test_weights_for_other_colours_are_refused(tmp_path):
    options = {"image_shape": (1, 8, 8), "hidden_dims": 4, "likelihood": "categorical"}
    trainer = Trainer(**QUIET)
    trainer.strategy.connect(LitVAE(palette=((0,), (9,)), **options))
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    runs.init_weights(LitVAE(palette=((9,), (0,)), **options), Digits(), tmp_path / "first.ckpt")
    with pytest.raises(runs.RunError, match="other colours"):
        runs.init_weights(LitVAE(palette=((0,), (8,)), **options), Digits(), tmp_path / "first.ckpt")
