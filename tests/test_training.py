"""The training system: it learns, it evaluates the same whatever the batches, it resumes to the last bit."""

import io
import os
import re
import resource
import warnings
from functools import partial
from pathlib import Path
from shutil import which

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Callback, Trainer
from scipy.ndimage import gaussian_filter
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from datamodules import DATASETS, MNIST, Batch, CryptoPunks, DataError, Digits, ImageDataModule
from vae import VAE, LitVAE, runs
from vae.callbacks import BestCheckpoint, LastCheckpoint, RunLogger, Speed, Story, is_filmed
from vae.cli import TrainCLI
from vae.distributions import LIKELIHOODS
from vae.figures import frame
from vae.lit_vae import OBJECTIVES, OPTIMIZERS, PosteriorCollapse
from vae.metrics import ActiveUnits, EvidencePerPicture, PerPicture, Quality
from vae.networks import NETWORKS

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0, "accelerator": "cpu"}


def fit(data, epochs=1, ckpt_path=None, logger=False, callbacks=(), **options):
    trainer = Trainer(max_epochs=epochs, logger=logger, callbacks=[LastCheckpoint(), *callbacks], **QUIET)
    torch.manual_seed(0)
    lit = LitVAE(image_shape=data.image_shape, hidden_dims=16, **options)
    trainer.fit(lit, data, ckpt_path=ckpt_path, weights_only=True)
    return lit, trainer


def evaluate(lit, data):
    trainer = Trainer(logger=False, enable_checkpointing=False, **QUIET)
    return trainer.test(lit, data, verbose=False)[0]


def bounds_of(epochs, **options):
    """The validation ELBO on Digits after each epoch."""
    bounds = []

    class Record(Callback):
        def on_validation_end(self, trainer, lit):
            bounds.append(trainer.callback_metrics["val/elbo"].item())

    fit(Digits(), epochs=epochs, callbacks=[Record()], **options)
    return bounds


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_training_raises_the_bound_of_every_likelihood(likelihood, network):
    data = Digits()
    data.setup()
    bounds = bounds_of(3, likelihood=likelihood, network=network, palette=data.palette(), channels=(4, 8))
    assert bounds[2] > bounds[0] + 0.2


@pytest.mark.parametrize(("optimizer", "learning_rate"), [("Adagrad", 0.02), ("SGD", 1e-3), ("RMSprop", 1e-3)])
def test_training_raises_the_bound_with_every_kind_of_optimizer(optimizer, learning_rate):
    bounds = bounds_of(3, optimizer=optimizer, learning_rate=learning_rate)
    assert bounds[2] > bounds[0] + 0.2


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_raises_the_bound(objective):
    bounds = bounds_of(3, objective=objective, num_samples=4)
    assert bounds[2] > bounds[0] + 0.2


def test_beta_rises_in_a_line_and_is_not_in_what_is_reported():
    betas = []

    class Record(Callback):
        def on_train_batch_end(self, trainer, lit, *batch):
            betas.append(lit.beta)

    lit, trainer = fit(Digits(), epochs=3, callbacks=[Record()], beta=0.5, beta_warmup_epochs=2)
    assert betas == pytest.approx([0.5 * min(1, step / 24) for step in range(36)])
    found = {name: trainer.callback_metrics[f"val/{name}"].item() for name in ("elbo", "reconstruction", "kl")}
    data, (noise,) = trainer.datamodule, lit.evaluation_noise(torch.arange(300), 1)
    beta_1 = lit.vae.elbo(data.splits["val"].images / 255, eps=noise).elbo.mean().item()
    assert found["elbo"] == pytest.approx(beta_1, rel=1e-5)
    plain, _ = fit(Digits(), epochs=3)
    assert not torch.equal(plain.vae.decoder[0].weight, lit.vae.decoder[0].weight)


def test_the_weights_prior_is_a_decay_of_one_over_n():
    _, trainer = fit(Digits(), weight_prior=True, weight_decay=0.01)
    assert trainer.optimizers[0].param_groups[0]["weight_decay"] == pytest.approx(0.01 + 1 / 1_197)


def test_training_can_start_at_the_mean_picture():
    data = Digits()
    starts = []

    class Start(Callback):
        def on_train_start(self, trainer, lit):
            starts.append(lit.vae.likelihood.logits[0].bias.detach().clone())

    fit(data, callbacks=[Start()], init_output_bias=True)
    torch.testing.assert_close(starts[0].sigmoid(), data.mean_picture().flatten().clamp(0.01, 0.99))


def test_posterior_collapse_is_named():
    with pytest.warns(PosteriorCollapse, match="no latent variable is active, the posterior has collapsed"):
        _, trainer = fit(Digits(), beta=1_000.0, epochs=2)
    assert trainer.callback_metrics["val/active_units"] == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", PosteriorCollapse)
        _, trainer = fit(Digits(), epochs=6)
    assert trainer.callback_metrics["val/active_units"] > 0


@pytest.fixture
def step(monkeypatch):
    """The loss of a training step on fifty digits, its LitVAE, the pictures, and the noise that it drew."""

    def run(batch_idx=0, **options):
        data = Digits(batch_size=50)
        data.setup()
        batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
        torch.manual_seed(0)
        lit = LitVAE(image_shape=data.image_shape, hidden_dims=16, **options)
        lit._trainer = Trainer(logger=False, **QUIET)
        lit.trainer.fit_loop.epoch_loop._batches_that_stepped = 0
        monkeypatch.setattr(Trainer, "num_training_batches", 24)
        drawn, randn = [], torch.randn
        with monkeypatch.context() as patched:
            patched.setattr(torch, "randn", lambda *a, **k: drawn.append(randn(*a, **k)) or drawn[-1])
            loss = lit.training_step(batch, batch_idx)
        return loss, lit, batch.images, drawn[-1]

    return run


def test_the_loss_is_the_negative_bound_of_the_batch(step):
    loss, lit, x, eps = step(num_samples=3)
    assert eps.shape == (3, 50, 2)
    torch.testing.assert_close(loss, -lit.vae.elbo(x, eps=eps).elbo.mean())
    assert step(num_samples=3)[0] == loss  # the noise is a function of epoch and batch
    assert step(num_samples=3, batch_idx=1)[0] != loss


def test_the_loss_can_be_estimator_a(step):
    loss, lit, x, eps = step(num_samples=3, analytic_kl=False)
    q_z = lit.vae.encode(x)
    log_w = lit.vae.log_weights(x, q_z, q_z.mean + q_z.stddev * eps)
    torch.testing.assert_close(loss, -log_w.mean())
    assert abs(loss - step(num_samples=3)[0]) > 1e-4


def test_the_loss_begins_without_the_kl_where_beta_warms_up(step):
    loss, lit, x, eps = step(beta_warmup_epochs=2)
    torch.testing.assert_close(loss, -lit.vae.elbo(x, eps=eps).reconstruction.mean())
    loss, lit, x, eps = step(beta=0.5)
    bound = lit.vae.elbo(x, eps=eps)
    torch.testing.assert_close(loss, (0.5 * bound.kl - bound.reconstruction).mean())


def test_iwae_and_dreg_have_one_value_and_two_gradients(step):
    gradients = []
    for objective in ("iwae", "dreg"):
        loss, lit, x, eps = step(objective=objective, num_samples=4)
        torch.testing.assert_close(loss, -lit.vae.log_marginal(x, eps=eps).mean())
        loss.backward()
        gradients.append([lit.vae.posterior.mean.weight.grad, lit.vae.likelihood.logits[0].weight.grad])
    (encoder, decoder), (doubly_encoder, doubly_decoder) = gradients
    torch.testing.assert_close(decoder, doubly_decoder)
    assert (encoder - doubly_encoder).abs().max() > 1e-3 * encoder.abs().max()


def test_no_optimizer_decays_unasked():
    for name in OPTIMIZERS:
        lit = LitVAE(image_shape=(1, 8, 8), hidden_dims=4, optimizer=name)
        assert lit.configure_optimizers().param_groups[0].get("weight_decay", 0) == 0, name


def test_evaluation_noise_is_a_function_of_picture_and_sample():
    lit = LitVAE(image_shape=(1, 8, 8), latent_dim=3)
    every = torch.cat([*lit.evaluation_noise(torch.arange(7), 100)])
    for k in (1, 5, 32, 33):
        assert torch.equal(torch.cat([*lit.evaluation_noise(torch.tensor([4, 2]), k)]), every[:k, [4, 2]])
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(torch.cat([*lit.evaluation_noise(torch.arange(7), 100)]), every)
    finally:
        torch.set_default_dtype(torch.float32)
    assert every.mean().abs() < 0.1
    assert every.std().item() == pytest.approx(1, abs=0.05)
    assert torch.corrcoef(every.flatten(1).T).fill_diagonal_(0).abs().max() < 0.45  # 21 series of 100


def test_evaluation_does_not_depend_on_the_batches():
    lit, _ = fit(Digits())
    lit.importance_samples = (3, 70)
    expected = evaluate(lit, Digits(batch_size=100))
    for batch_size in (7, 300):
        assert evaluate(lit, Digits(batch_size=batch_size)) == pytest.approx(expected, rel=1e-5)


def test_evaluation_is_the_models_own_bound_and_evidence():
    data = Digits()
    lit, _ = fit(data)
    lit.importance_samples = (500,)
    found = evaluate(lit, data)
    x = data.splits["test"].images / 255
    with torch.no_grad():
        bound, evidence = lit.vae.elbo(x, num_samples=200), lit.vae.evidence(x, num_samples=500)
        means = lit.vae.encode(x).mean
    assert found["test/kl"] == pytest.approx(bound.kl.mean().item(), rel=1e-5)
    assert found["test/elbo"] == pytest.approx(found["test/reconstruction"] - found["test/kl"], rel=1e-5)
    assert found["test/elbo"] == pytest.approx(bound.elbo.mean().item(), abs=0.1)
    mc_error = evidence.mc_error.square().sum().sqrt().item() / 300
    assert found["test/log_marginal"] == pytest.approx(evidence.log_marginal.mean().item(), abs=5 * mc_error)
    assert found["test/log_marginal_mc_error"] == pytest.approx(mc_error, rel=0.3)
    assert found["test/log_marginal_stderr"] == pytest.approx(evidence.log_marginal.std().item() / 300**0.5, rel=0.02)
    assert found["test/bits_per_dim"] == pytest.approx(-found["test/log_marginal"] / np.log(2) / 64, rel=1e-5)
    assert found["test/active_units"] == (means.var(0) > 0.01).sum()
    assert found["test/num_images"] == 300


def test_validation_reports_what_a_test_of_that_split_finds():
    data = Digits()
    lit, trainer = fit(data, epochs=2)
    reported = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    data.test_split = "val"
    found = evaluate(lit, data)
    assert {name: found[name.replace("val/", "test/")] for name in reported} == pytest.approx(reported, rel=1e-6)


@pytest.mark.parametrize("data", [MNIST, Digits])
def test_a_resumed_run_ends_with_the_same_weights(tiny_mnist, data):
    """With a cosine schedule and dynamic binarisation, which must both go on where they stopped."""
    small = {"val_size": 20} if data is MNIST else {}
    options = {"lr_schedule": "cosine", "num_samples": 2}

    class StopAfterTwo(Callback):
        def on_train_epoch_end(self, trainer, lit):
            trainer.should_stop = trainer.current_epoch == 1

    whole, _ = fit(data(batch_size=15, **small), epochs=4, **options)
    fit(data(batch_size=15, **small), epochs=4, callbacks=[StopAfterTwo()], **options)
    torch.rand(5)  # the state of the global generator does not matter
    last = max(runs.Path("checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    assert torch.load(last, weights_only=True)["epoch"] == 1
    resumed, _ = fit(data(batch_size=15, **small), epochs=4, ckpt_path=last, **options)
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name


def test_validation_does_not_change_training():
    with_validation, _ = fit(Digits(), epochs=2)

    class NoValidation(Digits):
        def val_dataloader(self):
            return []

    without, _ = fit(NoValidation(), epochs=2)
    assert torch.equal(with_validation.vae.decoder[0].weight, without.vae.decoder[0].weight)


def test_the_cosine_schedule_ends_at_zero():
    _, trainer = fit(Digits(), epochs=2, lr_schedule="cosine", learning_rate=0.01)
    assert trainer.optimizers[0].param_groups[0]["initial_lr"] == 0.01
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_weight_decay_reaches_the_optimizer():
    _, trainer = fit(Digits(), weight_decay=0.1, optimizer="AdamW")
    assert trainer.optimizers[0].param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "Adamm"}, "unknown optimizer 'Adamm': choose one of .*Adagrad, Adam, AdamW"),
        ({"lr_schedule": "steps"}, "unknown lr_schedule 'steps': choose one of constant, cosine"),
        ({"optimizer": "SparseAdam"}, "unknown optimizer 'SparseAdam'"),
        ({"weight_decay": -1.0}, r"weight_decay: expected 0 or more, got -1\.0"),
        ({"optimizer": "AdamW", "weight_prior": True}, "weight_prior: to AdamW decay is no gradient"),
        ({"optimizer": "Rprop", "weight_decay": 0.1}, "weight_decay: Rprop has none; choose another optimizer"),
        ({"objective": "vi"}, "unknown objective 'vi': choose one of dreg, elbo, iwae"),
        ({"objective": "iwae", "beta": 0.5}, "beta, beta_warmup_epochs and analytic_kl belong to the objective elbo"),
        ({"beta": -1.0}, r"beta: expected 0 or more, got -1\.0"),
        (
            {"likelihood": "categorical", "palette": ((0,), (1,)), "init_output_bias": True},
            "init_output_bias: this likelihood has no mean",
        ),
        ({"num_samples": 0}, "num_samples: expected a whole number of at least 1, got 0"),
        ({"learning_rate": 0.0}, r"learning_rate: expected a number above 0, got 0\.0"),
    ],
)
def test_a_wrong_option_is_answered_with_the_right_ones(options, message):
    with pytest.raises(ValueError, match=message):
        LitVAE(image_shape=(1, 8, 8), **options)


def test_a_checkpoint_is_plain_and_rebuilds_model_and_data(tiny_punks):
    data = CryptoPunks("black", batch_size=5)
    lit, trainer = fit(data, latent_dim=3)
    path = trainer.checkpoint_callback.best_model_path
    content = torch.load(path, weights_only=True)
    assert not any(key.startswith("_") for key in content["hyper_parameters"] | content["datamodule_hyper_parameters"])
    for rebuilt in (LitVAE.load_from_checkpoint(path, weights_only=True), runs.load(path, DATASETS)[0]):
        assert rebuilt.vae.latent_dim == 3
        x = torch.rand(2, 3, 24, 24)
        torch.testing.assert_close(rebuilt.vae.reconstruct(x), lit.vae.reconstruct(x))
    found = runs.load(path, DATASETS, data_dir="there")[1]
    assert found.hparams == {**data.hparams, "data_dir": "there"}


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
        ("foreign", "is not a checkpoint that this project's train.py wrote"),
        ("a list", "is not a checkpoint that this project's train.py wrote"),
        ("an unknown data set", "is not a checkpoint that this project's train.py wrote"),
        ("other weights", "is not a checkpoint that this project's train.py wrote"),
    ],
)
def test_a_checkpoint_that_is_none_of_ours(how, message):
    fit(Digits())
    path = next(runs.Path("checkpoints").glob("*.ckpt"))
    damaged(path, how)
    with pytest.raises(runs.RunError, match=message):
        runs.load(path, DATASETS)


@pytest.mark.parametrize("expanded", [False, True])
def test_a_checkpoint_of_absurd_size_takes_no_memory(expanded):
    """Hyper-parameters that ask for 7 GB: by themselves, and with weights that a few bytes only pretend to be."""
    fit(Digits())
    path = next(runs.Path("checkpoints").glob("*.ckpt"))
    checkpoint = torch.load(path, weights_only=True)
    wide = checkpoint["hyper_parameters"] | {"hidden_dims": (30_000, 30_000)}
    checkpoint["hyper_parameters"] = wide
    if expanded:
        with torch.device("meta"):
            shapes = LitVAE(**wide).state_dict()
        checkpoint["state_dict"] = {name: torch.zeros(()).expand(value.shape) for name, value in shapes.items()}
    torch.save(checkpoint, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(runs.RunError, match="is not a checkpoint that this project's train.py wrote"):
        runs.load(path, DATASETS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def test_best_is_the_highest_bound_and_last_the_last_epoch():
    """A model that is wrecked after its third epoch tells the two apart."""
    bounds = []

    class Wreck(Callback):
        def on_validation_end(self, trainer, lit):
            bounds.append(trainer.callback_metrics["val/elbo"].item())

        def on_train_epoch_start(self, trainer, lit):
            if trainer.current_epoch == 3:
                lit.vae.likelihood.logits[0].bias.data.add_(5.0)

    callbacks = [BestCheckpoint(), Wreck(), Speed(), Story()]
    _, trainer = fit(Digits(), epochs=5, logger=RunLogger("wreck"), callbacks=callbacks)
    assert np.argmax(bounds) == 2
    epochs = {
        name: torch.load(f"lightning_logs/wreck/checkpoints/{name}.ckpt", weights_only=True)["epoch"]
        for name in ("best", "last")
    }
    assert epochs == {"best": 2, "last": 4}
    assert runs.find_checkpoint() == runs.Path("lightning_logs/wreck/checkpoints/best.ckpt")


def test_without_validation_there_is_the_last_epoch(tiny_mnist):
    fit(MNIST(val_size=0), logger=RunLogger(), callbacks=[BestCheckpoint()])
    assert runs.find_checkpoint() == runs.Path("lightning_logs/version_0/checkpoints/last.ckpt")


def test_each_run_takes_a_folder_of_its_own():
    with pytest.raises(runs.RunError, match="A run's name is that of a folder in lightning_logs, not a path; got a/b"):
        runs.new_run("a/b")
    assert [runs.new_run().name for _ in range(3)] == ["version_0", "version_1", "version_2"]
    assert runs.new_run("mine").name == "mine"
    with pytest.raises(
        runs.RunError, match=r"(?s)lightning_logs/mine exists already.*--run_name mine --ckpt_path last"
    ):
        runs.new_run("mine")


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    runs.write(tmp_path / "new" / "file", b"first")

    def full(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        runs.write(tmp_path / "new" / "file", b"second")
    assert [path.read_bytes() for path in (tmp_path / "new").iterdir()] == [b"first"]


@pytest.fixture
def told(tmp_path):
    """What TensorBoard is told of a run of five epochs on Digits."""
    options = ["--trainer.max_epochs", "5", "--model.hidden_dims", "16", "--data.batch_size", "1000"]
    TrainCLI(ImageDataModule, DATASETS, ["--data", "Digits", *options]).fit()
    return EventAccumulator("lightning_logs/version_0", size_guidance={"tensors": 0, "histograms": 0}).Reload()


def test_tensorboard_has_every_curve_once_an_epoch(told):
    curves = {f"{stage}/{name}" for stage in ("train", "val") for name in ("elbo", "reconstruction", "kl")}
    curves |= {"learning_rate", "beta", "val/active_units", "epoch_seconds", "pictures_per_second", "pictures_seen"}
    for name in curves:
        assert [event.step for event in told.Scalars(name)] == [1, 3, 5, 7, 9], name
    assert set(told.Tags()["scalars"]) == curves | {"epoch", "best_val_elbo"}
    for stage in ("train", "val"):
        elbo, reconstruction, kl = (
            [e.value for e in told.Scalars(f"{stage}/{name}")] for name in ("elbo", "reconstruction", "kl")
        )
        np.testing.assert_allclose(elbo, np.subtract(reconstruction, kl), rtol=1e-5)
        assert max(elbo) < -20
        assert min(kl) > 0
    assert [event.value for event in told.Scalars("learning_rate")] == pytest.approx([1e-3] * 5)
    assert [event.value for event in told.Scalars("pictures_seen")] == [1197 * epoch for epoch in range(1, 6)]
    for speed, seconds in zip(told.Scalars("pictures_per_second"), told.Scalars("epoch_seconds"), strict=True):
        assert speed.value > 1197 / seconds.value  # without the validation
    best = max(event.value for event in told.Scalars("val/elbo"))
    assert [event.value for event in told.Scalars("best_val_elbo")] == pytest.approx([best])


def test_tensorboard_has_pictures_and_histograms_after_epochs_1_2_4_and_the_last(told):
    for name, columns, rows in (("samples", 6, 6), ("learned_manifold", 10, 10)):
        assert [event.step for event in told.Images(name)] == [2, 4, 8, 10]
        for event in told.Images(name):
            with Image.open(io.BytesIO(event.encoded_image_string)) as image:
                assert image.size == (event.width, event.height) == (10 * columns + 2, 10 * rows + 2)
    assert [event.step for event in told.Images("reconstruction")] == [2, 4, 8, 10]
    for name, count in (("kl_per_dimension", 2), ("posterior_means", 2 * 300)):
        assert [event.step for event in told.Histograms(name)] == [2, 4, 8, 10]
        assert all(event.histogram_value.num == count for event in told.Histograms(name))
    last, kl = told.Histograms("kl_per_dimension")[-1].histogram_value, told.Scalars("val/kl")[-1].value
    assert last.sum == pytest.approx(kl, rel=1e-4)


def test_tensorboard_lays_training_beside_validation(told):
    layout = Layout.FromString(told.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    (category,) = layout.category
    charts = {chart.title: list(chart.multiline.tag) for chart in category.chart}
    assert charts["KL"] == ["train/kl", "val/kl"]
    assert charts["bound"] == ["train/elbo", "train/importance_bound", "val/elbo"]
    tags = told.Tags()["scalars"]
    assert all(any(re.search(tag, known) for known in tags) for tag in (*charts["KL"], *charts["reconstruction"]))


def test_tensorboards_projector_has_codes_labels_and_pictures(told):
    config = Path("lightning_logs/version_0/projector_config.pbtxt").read_text()
    assert "posterior_means" in config
    (folder,) = Path("lightning_logs/version_0").glob("*/posterior_means")
    codes = np.loadtxt(folder / "tensors.tsv", delimiter="\t")
    lit, data = runs.load(runs.last_of(Path("lightning_logs/version_0")), DATASETS)
    with torch.no_grad():
        np.testing.assert_allclose(codes[:, :2], lit.vae.encode(data.pictures("val")).mean, rtol=1e-4, atol=1e-6)
    assert codes.shape == (300, 3)  # of fewer than three the projector shows nothing
    assert not codes[:, 2].any()
    assert (folder / "metadata.tsv").read_text().split() == [str(label) for label in data.labels("val").tolist()]
    with Image.open(folder / "sprite.png") as sprite:
        assert sprite.size == (18 * 8, 18 * 8)  # of 300 pictures


def test_tensorboard_compares_runs_by_hyper_parameters_and_results(told):
    content = told.PluginTagToContent("hparams")
    hparams = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info.hparams
    assert hparams["latent_dim"].number_value == 2
    assert hparams["hidden_dims"].string_value == "16" or hparams["hidden_dims"].number_value == 16
    assert hparams["data.dataset"].string_value == "Digits"
    experiment = HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment
    first = {info.name for info in experiment.hparam_infos if info.differs}
    assert first == {"data.dataset", "hidden_dims", "latent_dim", "likelihood", "objective"}
    names = {(metric.name.group, metric.name.tag) for metric in experiment.metric_infos}
    assert names == {("", "best_val_elbo"), ("test", "test/elbo"), ("test", "test/log_marginal")}


def test_a_runs_curves_and_frames_can_be_read_back(told):
    run = Path("lightning_logs/version_0")
    history = runs.history(run)
    assert history["val/elbo"] == {epoch: event.value for epoch, event in enumerate(told.Scalars("val/elbo"), 1)}
    assert history["pictures_seen"] == {epoch: 1197 * epoch for epoch in range(1, 6)}
    frames = runs.frames(run)
    assert [*frames] == [1, 2, 3, 4, 5]
    lit, _ = runs.load(runs.last_of(run), DATASETS)
    assert torch.equal(frames[5], frame(lit.vae))
    assert runs.history(run / "checkpoints") == {}
    runs.frame_of(run, 3).write_bytes(b"no picture")
    with pytest.raises(runs.RunError, match="000003.png is damaged, or too large for a film: delete it"):
        runs.frames(run)


@pytest.mark.parametrize(("epochs", "kept"), [(32, 32), (64, 32 + 16), (65, 48), (128, 32 + 16 + 16), (136, 65)])
def test_a_long_film_has_fewer_frames_later(epochs, kept):
    assert sum(is_filmed(epoch) for epoch in range(1, epochs + 1)) == kept


def test_bad_data_leaves_no_run_folder(tmp_path):
    cli = TrainCLI(ImageDataModule, DATASETS, ["--data", "CryptoPunks"])
    with pytest.raises(DataError):
        cli.fit()
    assert not (tmp_path / "lightning_logs").exists()


def test_pictures_are_counted_one_by_one():
    metric = PerPicture()
    metric.update({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([0.0, 0.0])})
    metric.update({"a": torch.tensor([6.0]), "b": torch.tensor([3.0])})
    assert metric.compute() == {"a": 3.0, "b": 1.0}  # not the mean of the batches' means


def test_errors_of_the_evidence():
    metric = EvidencePerPicture((1, 2, 2))
    metric.update({"log_marginal": torch.tensor([-4.0, -8.0]), "mc_error": torch.tensor([0.3, 0.4])})
    assert metric.compute() == pytest.approx(
        {
            "log_marginal": -6.0,
            "log_marginal_stderr": 2,
            "log_marginal_mc_error": 0.25,
            "bits_per_dim": 6 / np.log(2) / 4,
            "num_images": 2,
        }
    )


def test_the_quality_of_reconstructions_meets_numpy():
    a, b = torch.rand(20, 1, 8, 8), torch.rand(20, 1, 8, 8)
    metrics = Quality()
    for part in (slice(0, 7), slice(7, 20)):
        metrics.update(a[part], b[part])
    found = metrics.compute()
    mse = np.square(a.numpy() - b.numpy()).mean()
    assert found["mse"] == pytest.approx(mse, rel=1e-5)
    assert found["psnr"] == pytest.approx(-10 * np.log10(mse), rel=1e-5)
    blur = partial(gaussian_filter, sigma=1.5, truncate=3.5, mode="mirror", axes=(2, 3))
    a, b = a.double().numpy(), b.double().numpy()
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, covariance = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    ssim = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
    ssim /= (mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)
    assert found["ssim"] == pytest.approx(ssim.mean(), abs=1e-4)
    small = Quality()
    small.update(torch.rand(2, 1, 5, 20), torch.rand(2, 1, 5, 20))
    assert "ssim" not in small.compute()
    same = Quality()
    same.update(torch.ones(2, 1, 8, 8), torch.ones(2, 1, 8, 8))
    assert same.compute() == {"mse": 0.0, "psnr": float("inf"), "ssim": pytest.approx(1.0)}


def test_active_units_are_those_whose_mean_moves():
    metric = ActiveUnits()
    means = torch.randn(1000, 4) * torch.tensor([1.0, 0.2, 0.05, 0.0]) + 3
    for batch in means.split(300):
        metric.update(batch)
    assert metric.compute() == {"active_units": 2}


def test_the_model_works_without_lightning():
    vae = VAE((1, 8, 8))
    assert vae.log_marginal(torch.rand(2, 1, 8, 8), num_samples=3).shape == (2,)


@pytest.mark.skipif(not which(os.environ.get("CXX", "g++")), reason="there is no C++ compiler")
def test_a_compiled_bound_is_the_bound():
    batch = Batch(torch.rand(4, 1, 8, 8), None, torch.arange(4))
    plain = LitVAE(image_shape=(1, 8, 8), hidden_dims=8)
    compiled = LitVAE(image_shape=(1, 8, 8), hidden_dims=8, compile=True)
    compiled.load_state_dict(plain.state_dict())  # the same names
    eps = torch.randn(1, 4, 2)
    found, expected = compiled.elbo(batch.images, eps=eps), plain.vae.elbo(batch.images, eps=eps)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert compiled.elbo is not compiled.vae.elbo
