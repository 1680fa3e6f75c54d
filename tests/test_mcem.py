"""Monte Carlo EM, against probabilistic PCA, whose maximum likelihood is known in closed form."""

import math

import numpy as np
import pytest
import torch
from helpers import QUIET
from linear_gaussian import SHAPE, SIZE, LinearGaussian
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from scipy import stats
from torch import nn

from datamodules import ImageDataModule, ImageDataset
from vae.mcem import MonteCarloEM


class LearnedLinearGaussian(LinearGaussian):
    """p(x|z) = N(x; W z + b, s^2 I) of unknown W, b and s."""

    def __init__(self, latent_dim):
        super().__init__(nn.Parameter(torch.randn(SIZE, latent_dim)), nn.Parameter(torch.zeros(SIZE)), None)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, z):
        self.scale = self.log_scale.exp()
        return super().forward(z)


class Images(ImageDataModule):
    """Images of a linear model with two latent variables, whose values the tests choose."""

    image_shape = SHAPE

    def load(self):
        generator = torch.Generator().manual_seed(1)
        weight, z = torch.randn(SIZE, 2, generator=generator), torch.randn(120, 2, generator=generator)
        x = 128 + 25 * (z @ weight.T + 0.7 * torch.randn(120, SIZE, generator=generator))
        images = x.clamp(0, 255).to(torch.uint8).view(-1, *SHAPE)
        none = ImageDataset(images[:0])
        return {"train": ImageDataset(images), "val": none, "test": none}

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch._replace(images=(batch.images.float() - 128) / 25)


def fit(epochs, batch_size, ckpt_path=None, callbacks=(), **options):
    data = Images(batch_size=batch_size)
    torch.manual_seed(0)
    lit = MonteCarloEM(120, image_shape=SHAPE, hidden_dims=8, weight_prior=False, **options)
    lit.vae.decoder, lit.vae.likelihood = nn.Identity(), LearnedLinearGaussian(2)
    saves = {"enable_checkpointing": bool(callbacks), "callbacks": [*callbacks]}
    trainer = Trainer(max_epochs=epochs, logger=False, **saves, **QUIET)
    trainer.fit(lit, data, ckpt_path=ckpt_path, weights_only=True)
    return lit, data, trainer


@pytest.mark.slow
def test_it_ends_at_the_maximum_likelihood_of_probabilistic_pca():
    """Tipping & Bishop 1999, equations 7 and 8: of the eigenvalues, the two largest make W, the mean of the rest s^2.

    That s is found says that z has the spread of the posterior: from its mode s would come out too small.
    """
    lit, data, trainer = fit(100, 120, optimizer="Adam", learning_rate=0.03)
    x = ((data.splits["train"].images - 128.0) / 25).flatten(1).double().numpy()
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    variance = values[:-2].mean()
    weight = vectors[:, -2:] * np.sqrt(values[-2:] - variance)

    def log_likelihood(mean, weight, variance):
        return stats.multivariate_normal(mean, weight @ weight.T + variance * np.eye(SIZE)).logpdf(x).mean()

    likelihood = lit.vae.likelihood
    found = [value.detach().double().numpy() for value in (likelihood.bias, likelihood.weight, likelihood.log_scale)]
    highest = log_likelihood(x.mean(0), weight, variance)
    reached = log_likelihood(found[0], found[1], math.exp(2 * found[2]))
    assert highest - 0.1 < reached < highest
    assert math.exp(found[2]) == pytest.approx(variance**0.5, rel=0.02)
    assert trainer.callback_metrics["train/acceptance"] == pytest.approx(0.9, abs=0.05)


def test_a_resumed_run_ends_with_the_same_weights_and_chains():
    def saving(name):
        return [ModelCheckpoint(".", name, enable_version_counter=False)]

    whole, *_ = fit(4, 50, callbacks=saving("whole"))
    fit(2, 50, callbacks=saving("half"))
    assert torch.load("half.ckpt", weights_only=True)["state_dict"]["chains"].shape == (120, 2)
    resumed, *_ = fit(4, 50, ckpt_path="half.ckpt", callbacks=saving("resumed"))
    first, *_ = fit(1, 50)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert not any(torch.equal(chain, other) for chain, other in zip(whole.chains, first.chains, strict=True))


def test_the_encoder_has_no_part():
    lit, *_ = fit(1, 120)
    lit.vae.encoder = lit.vae.posterior = None
    before = lit.vae.likelihood.weight.detach().clone()
    Trainer(max_epochs=1, logger=False, enable_checkpointing=False, **QUIET).fit(lit, Images(batch_size=120))
    assert not torch.equal(lit.vae.likelihood.weight, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_images": 0}, "num_images: expected a whole number of at least 1, got 0"),
        ({"num_updates": 1.5}, "num_updates: expected a whole number of at least 1, got 1.5"),
        ({"num_leapfrog_steps": 0}, "num_leapfrog_steps: expected a whole number"),
        ({"target_acceptance": 1.0}, "target_acceptance: expected a number between 0 and 1, got 1.0"),
        ({"learning_rate": -1.0}, "learning_rate: expected a number above 0"),
        ({"optimizer": "Adamm"}, "unknown optimizer 'Adamm'"),
        ({"latent_dim": 0}, "latent_dim: expected"),
    ],
)
def test_a_wrong_option_is_answered_with_the_right_ones(options, message):
    with pytest.raises(ValueError, match=message):
        MonteCarloEM(**{"num_images": 3, "image_shape": SHAPE} | options)
