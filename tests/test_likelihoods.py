"""Heads: precision, floors, sizes, the bias that they start with, and what their numbers are."""

from math import prod

import numpy as np
import pytest
import torch
from helpers import GREY, OPTIONS, Given, distribution
from torch import nn
from torch.distributions import Normal, kl_divergence

from datamodules import Digits
from vae import VAE
from vae.likelihoods import LIKELIHOODS, DiagonalGaussian
from vae.model import build


def test_half_precision_features_lose_no_density():
    """Logits of 7 in bfloat16: sigmoid rounds to 1 there, and its logarithm to 0."""
    logits = torch.full((1, 4, 4), 7.0, dtype=torch.bfloat16)
    found = distribution("bernoulli", logits, image_shape=(1, 4, 4)).log_prob(torch.ones(1, 4, 4))
    assert found.item() == pytest.approx(-16 * np.log1p(np.exp(-7)), rel=1e-3)


def test_the_gaussians_scale_has_a_floor():
    assert distribution("gaussian", torch.zeros(1, 1, 1), torch.full((1, 1, 1), -200.0)).stddev.item() == pytest.approx(
        0.01
    )
    learned = build(
        LIKELIHOODS["gaussian_fixed"],
        output_layer=lambda n: Given(torch.zeros(1, 1, 1)),
        image_shape=(1, 1, 1),
        **OPTIONS | {"learn_scale": True, "min_scale": 0.2},
    )
    assert learned(None).stddev.item() == pytest.approx(0.3, rel=1e-6)  # where it starts
    nn.init.constant_(learned.log_var, -200.0)
    assert learned(None).stddev.item() == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("name", "beyond", "bound"),
    [
        ("gaussian", -1_000.0, -30.0),
        ("gaussian", 1_000.0, 20.0),
        ("discretized_logistic", -1_000.0, -13.0),
        ("discretized_logistic", 1_000.0, 12.0),
        ("posterior", -1_000.0, -30.0),
        ("posterior", 1_000.0, 20.0),
    ],
)
def test_what_is_beyond_a_bound_is_trained_back(name, beyond, bound):
    """The gradient there is that at the bound; descent leads inside."""
    slopes = []
    for value in (beyond, bound):
        given = torch.full((1, 1, 1), value, requires_grad=True)
        if name == "posterior":
            posterior = DiagonalGaussian(1, 1)
            nn.init.zeros_(posterior.log_var.weight)
            given = nn.init.constant_(posterior.log_var.bias, value)
            loss = kl_divergence(posterior(torch.zeros(1)).base_dist, Normal(0, 1)).sum()
        else:
            loss = -distribution(name, torch.zeros(1, 1, 1), given).log_prob(torch.full((1, 1, 1), 17 / 255))
        loss.backward()
        slopes.append(given.grad.item())
    assert slopes[0] == slopes[1]
    assert beyond * slopes[0] > 0


def test_the_categorical_head_is_factored():
    palette = tuple((i, 255 - i, i) for i in range(214))
    vae = VAE((3, 24, 24), likelihood="categorical", palette=palette)
    assert sum(parameter.numel() for parameter in vae.likelihood.parameters()) < 5_000_000


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if name != "categorical"])
def test_the_output_bias_can_start_at_the_mean_image(name, network):
    data = Digits()
    data.setup()
    mean = data.mean_image()
    vae = VAE(data.image_shape, likelihood=name, network=network)
    before = (vae.sample(1) - mean).abs().mean()
    vae.likelihood.init_output_bias(mean)
    for module in vae.decoder.modules():
        for parameter in module.parameters(recurse=False):
            nn.init.zeros_(parameter)  # the bias alone speaks
    shown = vae.sample(1)[0]
    if name != "discretized_logistic":  # its mean depends on its scale too
        expected = mean if network == "mlp" else mean.mean((1, 2), keepdim=True).expand_as(mean)
        torch.testing.assert_close(shown, expected.clamp(0.01, 0.99))
    assert (shown - mean).abs().mean() < before


class OwnLayer(nn.Module):
    """An output layer that is no nn.Sequential."""

    def __init__(self, in_features, num_parameters, size, bias=True):
        super().__init__()
        self.size = num_parameters, *size
        self.inner = nn.Linear(in_features, 5)
        self.maps = nn.Linear(5, num_parameters * prod(size), bias=bias)

    def forward(self, features):
        return self.maps(self.inner(features)).unflatten(-1, self.size)


def test_the_bias_of_an_output_layer_of_ones_own_can_start_at_the_mean():
    mean = torch.rand(1, 2, 3) * 0.9 + 0.05
    head = LIKELIHOODS["bernoulli"](lambda n: OwnLayer(4, n, (2, 3)), (1, 2, 3))
    nn.init.zeros_(head.logits.maps.weight)
    head.init_output_bias(mean)
    torch.testing.assert_close(head(torch.randn(1, 4)).mean[0], mean)


@pytest.mark.parametrize(("size", "bias", "found"), [((2, 3), False, "5 values"), ((4, 6), True, "24 values")])
def test_an_output_layer_without_such_a_bias(size, bias, found):
    head = LIKELIHOODS["bernoulli"](lambda n: OwnLayer(4, n, size, bias), (1, 2, 3))
    with pytest.raises(ValueError, match=rf"init_output_bias: expected .* 6 values .* or 1 .*, got {found}"):
        head.output_bias()


@pytest.mark.parametrize(
    ("name", "binary", "measure"),
    [
        ("bernoulli", True, "log-likelihood"),
        ("bernoulli", False, "cross-entropy"),
        ("continuous_bernoulli", False, "log-density"),
        ("gaussian", False, "log-density"),
        ("gaussian_fixed", False, "log-density"),
        ("discretized_logistic", False, "log-likelihood"),
        ("categorical", False, "log-likelihood"),
    ],
)
def test_each_says_what_its_numbers_are(name, binary, measure):
    vae = VAE((1, 8, 8), likelihood=name, palette=GREY)
    assert vae.likelihood.log_prob_kind(binary) == measure
