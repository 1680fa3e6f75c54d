"""The training system: it learns, it evaluates the same whatever the batches, it resumes to the last bit."""

import os
import warnings
from functools import partial
from pathlib import Path
from shutil import which
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import QUIET, bounds_of, evaluate, fit
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, IterableDataset

from datamodules import MNIST, Digits
from vae import VAE, LitVAE
from vae.callbacks import Throughput
from vae.evaluation import evaluation_noise
from vae.likelihoods import LIKELIHOODS
from vae.marginal import importance_sampling
from vae.networks import NETWORKS
from vae.noise import StepNoise, derive_seed
from vae.objectives import OBJECTIVES
from vae.optimization import OPTIMIZERS
from vae.soundness import NotFinite, PosteriorCollapse


@pytest.mark.parametrize(
    ("likelihood", "network"),
    [*((name, "mlp") for name in LIKELIHOODS), *(("categorical", name) for name in NETWORKS if name != "mlp")],
)
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
        def on_before_optimizer_step(self, trainer, lit, optimizer):
            betas.append(lit.beta)

    lit, trainer = fit(Digits(), epochs=3, callbacks=[Record()], beta=0.5, beta_warmup_epochs=2)
    assert betas == pytest.approx([0.5 * min(1, step / 24) for step in range(36)])
    found = {name: trainer.callback_metrics[f"val/{name}"].item() for name in ("elbo", "reconstruction", "kl")}
    data, (noise,) = trainer.datamodule, evaluation_noise(torch.arange(300), 1, 2)
    beta_1 = lit.vae.elbo(data.splits["val"].images / 255, eps=noise).elbo.mean().item()
    assert found["elbo"] == pytest.approx(beta_1, rel=1e-5)
    plain, _ = fit(Digits(), epochs=3)
    assert not torch.equal(plain.vae.decoder[0].weight, lit.vae.decoder[0].weight)


def test_the_weights_prior_is_a_decay_of_one_over_n():
    _, trainer = fit(Digits(), weight_prior=True, weight_decay=0.01)
    assert trainer.optimizers[0].param_groups[0]["weight_decay"] == pytest.approx(0.01 + 1 / 1_197)


def test_training_can_start_at_the_mean_image():
    data = Digits()
    starts = []

    class Start(Callback):
        def on_train_start(self, trainer, lit):
            starts.append(lit.vae.likelihood.logits[0].bias.detach().clone())

    fit(data, callbacks=[Start()], init_output_bias=True)
    torch.testing.assert_close(starts[0].sigmoid(), data.mean_image().flatten().clamp(0.01, 0.99))


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
    """The loss of a training step on fifty digits, its LitVAE, the images, and the noise that it takes."""

    def run(step=0, **options):
        data = Digits(batch_size=50, steps_per_block=1)
        data.setup()
        batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
        torch.manual_seed(0)
        lit = LitVAE(image_shape=data.image_shape, hidden_dims=16, **options)
        lit._trainer = Trainer(logger=False, **QUIET)
        monkeypatch.setattr(LitVAE, "steps_per_epoch", 24)
        noise = lit.training_noise(len(batch.images), step)
        loss, _ = lit.loss(batch.images, noise, lit.beta)
        return loss, lit, batch.images, noise.eps

    return run


def test_the_loss_is_the_negative_bound_of_the_batch(step):
    loss, lit, x, eps = step(num_samples=3)
    assert eps.shape == (3, 50, 2)
    torch.testing.assert_close(loss, -lit.vae.elbo(x, eps=eps).elbo.mean())
    assert step(num_samples=3)[0] == loss  # the noise is a function of epoch and step
    assert step(num_samples=3, step=1)[0] != loss


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


def steps_by_hand(lit, data, epochs, clip=None, total_steps=None):
    """The weights after a plain PyTorch loop over the same batches, with the same noise; and the loss of each step."""
    data.setup()
    optimizer = torch.optim.Adam(lit.vae.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total_steps) if total_steps else None
    loader, losses = data.train_dataloader(), []
    for epoch in range(epochs):
        steps = [x for batch in loader for x in batch.images.split(batch.sizes)]  # each pass is the next epoch
        for step, x in enumerate(steps):
            generator = torch.Generator().manual_seed(derive_seed(2, 0, epoch, 0) + step)
            eps = torch.randn(1, len(x), 2, generator=generator)
            loss = -lit.vae.elbo(x / 255, eps=eps).elbo.mean()
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(lit.vae.parameters(), clip)
            optimizer.step()
            if schedule:
                schedule.step()
    return lit.vae.state_dict(), losses


@pytest.mark.parametrize("steps_per_block", [1, 5, 100])
def test_training_is_a_plain_loop_over_blocks(steps_per_block):
    """Gradient clipping and a cosine schedule by the step; 1,197 images make a short last batch and last block."""
    data = {"batch_size": 100, "steps_per_block": steps_per_block}
    seen = []

    class Record(Callback):
        def on_train_batch_end(self, trainer, lit, outputs, batch, batch_idx):
            seen.append((trainer.global_step - 1, outputs["loss"].item()))

    options = {"gradient_clip_val": 0.5, "lr_schedule": "cosine"}
    lit, trainer = fit(Digits(**data), epochs=2, callbacks=[Record()], **options)
    assert trainer.global_step == 24
    torch.manual_seed(0)
    plain = LitVAE(image_shape=(1, 8, 8), hidden_dims=16)
    expected, losses = steps_by_hand(plain, Digits(**data), epochs=2, clip=0.5, total_steps=24)
    assert [loss for _, loss in seen] == pytest.approx([losses[step] for step, _ in seen], rel=1e-5)
    for name, weights in lit.vae.state_dict().items():
        torch.testing.assert_close(weights, expected[name])
    without, _ = fit(Digits(**data), epochs=2, lr_schedule="cosine")
    assert not torch.equal(without.vae.decoder[0].weight, lit.vae.decoder[0].weight)


@pytest.mark.parametrize(
    ("batch_size", "limits"),
    [
        (7, {1: {}, 3: {}, 10: {}}),  # six steps an epoch, the last of five images
        (3, {1: {"limit_train_batches": 6}, 3: {"limit_train_batches": 2}}),  # of 14 steps
        (7, {1: {"max_steps": 9}, 4: {"max_steps": 9}}),  # the end is within a block
    ],
)
def test_the_size_of_blocks_changes_no_number(tiny_mnist, batch_size, limits):
    """Of the noise and of the images, which are drawn anew at each step."""
    trained = []
    for steps_per_block, limit in limits.items():
        options = {"max_epochs": 2} | limit | QUIET
        trainer = Trainer(logger=False, enable_checkpointing=False, **options)
        torch.manual_seed(0)
        lit = LitVAE(image_shape=(1, 28, 28), hidden_dims=16, num_samples=2)
        trainer.fit(lit, MNIST(val_size=20, batch_size=batch_size, steps_per_block=steps_per_block))
        trained.append((trainer.global_step, lit.state_dict()))
    (steps, first), *others = trained
    assert steps == limits[1].get("max_steps", 12)
    for other_steps, other in others:
        assert other_steps == steps
        assert all(torch.equal(first[name], other[name]) for name in first)


def test_the_noise_of_steps_is_unrelated():
    lit = LitVAE(image_shape=(1, 8, 8), latent_dim=20)
    series = []
    for epoch, rank in ((0, 0), (0, 1), (1, 0)):
        lit._trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank)
        series += [lit.training_noise(500, step).eps.flatten() for step in range(20)]
    correlations = torch.corrcoef(torch.stack(series)).fill_diagonal_(0) * 10_000**0.5
    assert correlations.abs().max() < 5


@pytest.mark.parametrize("max_steps", [1, 7, 17])
def test_max_steps_is_exact(max_steps):
    steps = []

    class Count(Callback):
        def on_before_optimizer_step(self, trainer, lit, optimizer):
            steps.append(trainer.global_step)

    trainer = Trainer(max_steps=max_steps, logger=False, enable_checkpointing=False, callbacks=[Count()], **QUIET)
    trainer.fit(LitVAE(image_shape=(1, 8, 8), hidden_dims=16), Digits(batch_size=100, steps_per_block=5))
    assert trainer.global_step == max_steps
    assert steps == [*range(max_steps)]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_gradients_are_clipped_in_every_precision(precision):
    norms = []

    class Norm(Callback):
        def on_train_batch_end(self, trainer, lit, *batch):
            norms.append(torch.cat([p.grad.flatten().double() for p in lit.parameters()]).norm().item())

    data = Digits(batch_size=100, steps_per_block=1)
    trainer = Trainer(
        max_steps=3, precision=precision, logger=False, enable_checkpointing=False, callbacks=[Norm()], **QUIET
    )
    trainer.fit(LitVAE(image_shape=(1, 8, 8), hidden_dims=16, gradient_clip_val=0.5), data)
    assert norms == pytest.approx([0.5] * 3, rel=0.02)


@pytest.mark.parametrize(("precision", "optimizer"), [("16-true", "Adam"), ("16-true", "SGD"), ("32-true", "Adam")])
def test_weights_of_too_few_bits_are_not_trained(precision, optimizer):
    trainer = Trainer(max_epochs=1, precision=precision, logger=False, enable_checkpointing=False, **QUIET)
    lit = LitVAE(image_shape=(1, 8, 8), hidden_dims=8, optimizer=optimizer).half()
    with pytest.raises(MisconfigurationException, match=r"weights in torch\.float16 do not train"):
        trainer.fit(lit, Digits())


def test_a_loss_that_is_not_finite_names_its_step():
    """Step 8 of epoch 2, in the middle of a block: the first one after a weight became no number."""

    class Poison(Callback):
        def on_before_optimizer_step(self, trainer, lit, optimizer):
            if trainer.global_step == 12 + 6:
                with torch.no_grad():
                    lit.vae.posterior.mean.weight.fill_(torch.nan)

    with pytest.raises(NotFinite, match="not finite in epoch 2, from step 8 on"):
        fit(Digits(batch_size=100, steps_per_block=5), epochs=3, callbacks=[Poison()])


def test_no_collective_sees_a_tensor_of_another_device(monkeypatch):
    """NCCL refuses tensors on the CPU. Here the model says that it is on the meta device, and gathers are recorded."""
    lit, trainer = fit(Digits(batch_size=100))
    lit.train_table.update({"elbo": torch.zeros(5)})
    devices = []

    def collective(tensor, *args, **kwargs):
        devices.append((tensor.device.type, tensor.dtype))
        return torch.tensor(2**62)

    monkeypatch.setattr(LitVAE, "device", torch.device("meta"))
    monkeypatch.setattr(lit, "all_gather", collective)
    monkeypatch.setattr(trainer.strategy, "reduce", collective)
    monkeypatch.setattr(lit, "log_epoch", lambda values: None)
    lit.check_finite()
    lit.train_table.update({"elbo": torch.full((5,), torch.nan)})
    lit.check_finite()
    throughput = Throughput()
    throughput.on_train_start(trainer, lit)
    throughput.on_train_epoch_start(trainer, lit)
    throughput.on_train_epoch_end(trainer, lit)
    assert devices == [("meta", torch.int64)] * 3


@pytest.mark.parametrize("again", ["fit", "load"])
def test_only_the_first_fit_starts_the_output_bias(again):
    lit, trainer = fit(Digits(), epochs=2, init_output_bias=True)
    if again == "load":
        path = trainer.checkpoint_callback.best_model_path
        lit = LitVAE.load_from_checkpoint(path, weights_only=True)
    trained = lit.vae.likelihood.logits[0].bias.detach().clone()
    starts = []

    class Start(Callback):
        def on_train_start(self, trainer, lit):
            starts.append(lit.vae.likelihood.logits[0].bias.detach().clone())

    Trainer(max_epochs=1, logger=False, enable_checkpointing=False, callbacks=[Start()], **QUIET).fit(lit, Digits())
    assert torch.equal(starts[0], trained)


def test_seed_everything_seeds_the_noise(monkeypatch):
    assert LitVAE(image_shape=(1, 8, 8)).hparams.seed == 0
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert LitVAE(image_shape=(1, 8, 8)).hparams.seed == 7
    assert LitVAE(image_shape=(1, 8, 8), seed=3).hparams.seed == 3


def test_no_optimizer_decays_unasked():
    for name in OPTIMIZERS:
        lit = LitVAE(image_shape=(1, 8, 8), hidden_dims=4, optimizer=name)
        assert lit.configure_optimizers().param_groups[0].get("weight_decay", 0) == 0, name


def test_evaluation_does_not_depend_on_the_batches():
    lit, _ = fit(Digits())
    lit.estimator = partial(importance_sampling, num_samples=(3, 70))
    expected = evaluate(lit, Digits(batch_size=100))
    for batch_size in (7, 300):
        assert evaluate(lit, Digits(batch_size=batch_size)) == pytest.approx(expected, rel=1e-5)


def test_evaluation_is_the_models_own_bound_and_estimate():
    data = Digits()
    data.binary = True  # as if the cross-entropy of grey pixels were a log-likelihood
    lit, _ = fit(data)
    lit.estimator = partial(importance_sampling, num_samples=(1, 500))
    found = evaluate(lit, data)
    x = data.splits["test"].images / 255
    with torch.no_grad():
        bound, estimate = lit.vae.elbo(x, num_samples=200), importance_sampling(lit.vae, x, torch.arange(300), 500)
        means = lit.vae.encode(x).mean
    assert found["test/kl"] == pytest.approx(bound.kl.mean().item(), rel=1e-5)
    assert found["test/elbo"] == pytest.approx(found["test/reconstruction"] - found["test/kl"], rel=1e-5)
    assert found["test/elbo"] == pytest.approx(bound.elbo.mean().item(), abs=0.1)
    assert found["test/log_marginal"] == pytest.approx(estimate.log_marginal.mean().item(), rel=1e-6)
    assert found["test/bound_500"] == found["test/log_marginal"]
    assert found["test/bound_1"] < found["test/bound_500"]
    assert found["test/log_marginal_stderr"] == pytest.approx(estimate.log_marginal.std().item() / 300**0.5, rel=1e-5)
    sizes = estimate.details["effective_sample_size"]
    assert found["test/effective_sample_size"] == pytest.approx(sizes.mean().item(), rel=1e-5)
    assert found["test/bits_per_dim"] == pytest.approx(-found["test/log_marginal"] / np.log(2) / 64, rel=1e-5)
    assert found["test/active_units"] == (means.var(0) > 0.01).sum()
    assert found["test/num_images"] == 300


def test_only_a_log_likelihood_has_bits():
    data = Digits()
    data.setup()
    for likelihood in LIKELIHOODS:
        lit = LitVAE(image_shape=(1, 8, 8), hidden_dims=8, likelihood=likelihood, palette=data.palette())
        reported = "test/bits_per_dim" in evaluate(lit, data)
        assert reported == (likelihood in ("discretized_logistic", "categorical")), likelihood
    data.binary = True  # then the cross-entropy is the log-likelihood
    assert "test/bits_per_dim" in evaluate(LitVAE(image_shape=(1, 8, 8), hidden_dims=8), data)


def test_images_and_noise_keep_their_digits_in_half_precision(monkeypatch):
    found = []
    elbo = VAE.elbo

    def spy(vae, x, *args, **kwargs):
        found.append((x.clone(), kwargs["eps"].dtype))
        return elbo(vae, x, *args, **kwargs)

    monkeypatch.setattr(VAE, "elbo", spy)
    data = Digits()
    trainer = Trainer(max_epochs=1, precision="bf16-true", logger=False, enable_checkpointing=False, **QUIET)
    trainer.fit(LitVAE(image_shape=(1, 8, 8), hidden_dims=8), data)
    assert {dtype for _, dtype in found} == {torch.float32}
    assert sum(map(len, (x for x, _ in found))) == 1_497  # training and validation
    levels = torch.cat([data.splits["train"].images, data.splits["val"].images]).unique() / 255
    assert torch.equal(torch.cat([x for x, _ in found]).unique(), levels)


def test_validation_reports_what_a_test_of_that_split_finds():
    data = Digits()
    lit, trainer = fit(data, epochs=2)
    reported = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    data.test_split = "val"
    found = evaluate(lit, data)
    assert {name: found[name.replace("val/", "test/")] for name in reported} == pytest.approx(reported, rel=1e-6)


@pytest.mark.parametrize(("data", "objective"), [(MNIST, "elbo"), (Digits, "elbo"), (Digits, "wake_sleep")])
def test_a_resumed_run_ends_with_the_same_weights(tiny_mnist, data, objective):
    """With a cosine schedule, dynamic binarisation and draws from the model, which must go on where they stopped."""
    small = {"val_size": 20, "batch_size": 15} if data is MNIST else {}
    options = {"lr_schedule": "cosine", "num_samples": 2, "objective": objective}

    class StopAfterTwo(Callback):
        def on_train_epoch_end(self, trainer, lit):
            trainer.should_stop = trainer.current_epoch == 1

    whole, _ = fit(data(**small), epochs=4, **options)
    fit(data(**small), epochs=4, callbacks=[StopAfterTwo()], **options)
    torch.rand(5)  # the state of the global generator does not matter
    last = max(Path("checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    assert torch.load(last, weights_only=True)["epoch"] == 1
    resumed, _ = fit(data(**small), epochs=4, ckpt_path=last, **options)
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name


def test_a_run_of_automatic_optimization_keeps_its_count_of_steps():
    _, trainer = fit(Digits(), epochs=2)
    path = trainer.checkpoint_callback.best_model_path
    checkpoint = torch.load(path, weights_only=True)
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.manual_optimization.optim_step_progress"]
    assert progress["total"]["completed"] == 24
    progress["total"] = {"ready": 0, "completed": 0}
    torch.save(checkpoint, path)
    _, trainer = fit(Digits(), epochs=3, ckpt_path=path)
    assert trainer.global_step == 36


def test_validation_does_not_change_training():
    with_validation, _ = fit(Digits(), epochs=2)

    class NoValidation(Digits):
        def val_dataloader(self):
            return []

    without, _ = fit(NoValidation(), epochs=2)
    assert torch.equal(with_validation.vae.decoder[0].weight, without.vae.decoder[0].weight)


class RecordSchedules(Callback):
    """The learning rate and beta of each step; training may stop after an epoch."""

    def __init__(self, stop_after=None):
        self.steps, self.stop_after = [], stop_after

    def on_before_optimizer_step(self, trainer, lit, optimizer):
        self.steps.append((optimizer.param_groups[0]["lr"], lit.beta))

    def on_train_epoch_end(self, trainer, lit):
        trainer.should_stop = trainer.current_epoch + 1 == self.stop_after


@pytest.mark.parametrize(("epochs", "limit", "steps"), [(3, 1.0, 12), (2, 1, 5), (2, 1.0, 12)])
def test_a_resumed_run_follows_its_end_as_it_is_now(epochs, limit, steps):
    """A later end, fewer steps in an epoch, and neither: the schedule ends at 0, the warm-up goes on in a line."""
    options = {"lr_schedule": "cosine", "learning_rate": 0.01, "beta_warmup_epochs": 4}
    _, trainer = fit(Digits(steps_per_block=5), epochs=2, callbacks=[RecordSchedules(stop_after=1)], **options)
    record = RecordSchedules()
    resumed = Trainer(max_epochs=epochs, limit_train_batches=limit, logger=False, callbacks=[record], **QUIET)
    path = trainer.checkpoint_callback.best_model_path
    lit = LitVAE(image_shape=(1, 8, 8), hidden_dims=16, **options)
    resumed.fit(lit, Digits(steps_per_block=5), ckpt_path=path, weights_only=True)
    done = [1 + step / steps for step in range((epochs - 1) * steps)]  # in epochs
    expected = [(0.005 * (1 + np.cos(np.pi * at / epochs)), at / 4) for at in done]
    np.testing.assert_allclose(record.steps, expected, rtol=1e-9)
    assert resumed.optimizers[0].param_groups[0]["lr"] == 0


def test_a_schedule_can_end_by_steps_alone():
    record = RecordSchedules()
    limits = {"max_epochs": -1, "max_steps": 20, "logger": False, "enable_checkpointing": False, "callbacks": [record]}
    lit = LitVAE(image_shape=(1, 8, 8), hidden_dims=16, lr_schedule="cosine", learning_rate=0.01)
    Trainer(**limits, **QUIET).fit(lit, DataLoader(Endless(), batch_size=10))
    expected = [0.005 * (1 + np.cos(np.pi * step / 20)) for step in range(20)]
    np.testing.assert_allclose([rate for rate, _ in record.steps], expected, rtol=1e-9)


class Endless(IterableDataset):
    """Images without a number of them."""

    def __iter__(self):
        while True:
            yield torch.rand(1, 8, 8)


@pytest.mark.parametrize(
    ("options", "limits", "message"),
    [
        ({"lr_schedule": "cosine"}, {"max_epochs": -1}, "lr_schedule cosine: ends with the training, which has no end"),
        ({"lr_schedule": "cosine"}, {"max_epochs": 2}, "lr_schedule cosine: needs the steps of an epoch.* or end the"),
        ({"beta_warmup_epochs": 2}, {"max_steps": 9}, "beta_warmup_epochs: needs the steps of an epoch.* a __len__$"),
        ({"weight_prior": True}, {"max_steps": 9}, "weight_prior: needs the number of training images.*weight_decay"),
    ],
)
def test_an_end_that_does_not_exist_is_refused(options, limits, message):
    trainer = Trainer(logger=False, enable_checkpointing=False, **limits, **QUIET)
    lit = LitVAE(image_shape=(1, 8, 8), hidden_dims=16, **options)
    with pytest.raises(MisconfigurationException, match=message):
        trainer.fit(lit, DataLoader(Endless(), batch_size=10))
    assert trainer.global_step == 0


def test_the_cosine_schedule_ends_at_zero():
    _, trainer = fit(Digits(), epochs=2, lr_schedule="cosine", learning_rate=0.01)
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
        ({"optimizer": "AdamW", "weight_prior": True}, "weight_prior: the decay of AdamW is not part of the gradient"),
        ({"optimizer": "Adafactor", "weight_prior": True}, "weight_prior: the decay of Adafactor is not part"),
        ({"gradient_clip_val": 0.0}, r"gradient_clip_val: expected a number above 0, got 0\.0"),
        ({"optimizer": "LBFGS"}, "unknown optimizer 'LBFGS'"),
        (
            {"optimizer": "Rprop", "lr_schedule": "cosine"},
            "lr_schedule: Rprop takes its learning rate at the first step",
        ),
        ({"optimizer": "Rprop", "weight_decay": 0.1}, "weight_decay: Rprop has none; choose another optimizer"),
        ({"objective": "vi"}, "unknown objective 'vi': choose one of dreg, elbo, iwae, wake_sleep"),
        ({"objective": "iwae", "beta": 0.5}, "beta, beta_warmup_epochs and analytic_kl belong to the objective elbo"),
        ({"objective": "wake_sleep", "analytic_kl": False}, "belong to the objective elbo, not to wake_sleep"),
        ({"beta": -1.0}, r"beta: expected 0 or more, got -1\.0"),
        (
            {"likelihood": "categorical", "palette": ((0,), (1,)), "init_output_bias": True},
            "init_output_bias: this likelihood has no mean",
        ),
        ({"num_samples": 0}, "num_samples: expected a whole number of at least 1, got 0"),
        ({"num_samples": 1.0}, r"num_samples: expected a whole number of at least 1, got 1\.0"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
        ({"learning_rate": 0.0}, r"learning_rate: expected a number above 0, got 0\.0"),
        ({"learning_rate": "0.1"}, "learning_rate: expected a number above 0, got '0.1'"),
    ],
)
def test_a_wrong_option_is_answered_with_the_right_ones(options, message):
    with pytest.raises(ValueError, match=message):
        LitVAE(image_shape=(1, 8, 8), **options)


@pytest.mark.slow
@pytest.mark.skipif(not which(os.environ.get("CXX", "g++")), reason="there is no C++ compiler")
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_compiled_loss_is_the_loss(objective):
    """Draws from the model included, whose noise is not the compiler's."""
    x, noise = torch.rand(4, 1, 8, 8), StepNoise((3, 4, 2), (0, 0, 0), 0, torch.device("cpu"))
    plain = LitVAE(image_shape=(1, 8, 8), hidden_dims=8, objective=objective)
    compiled = LitVAE(image_shape=(1, 8, 8), hidden_dims=8, objective=objective, compile=True)
    compiled.load_state_dict(plain.state_dict())  # the same names
    for beta in (1.0, 0.3, 0.4):  # which a warm-up changes at each step
        results = [lit.training_loss(x, noise, beta) for lit in (plain, compiled)]
        for loss, _ in results:
            loss.backward()
        (one, some), (other, others) = results
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(some, others)
    gradients = [[parameter.grad for parameter in lit.parameters()] for lit in (plain, compiled)]
    torch.testing.assert_close(*gradients)
