"""Every p(x|z): its log-density against an independent oracle, its total, its gradients, its extremes."""

import numpy as np
import pytest
import torch
from helpers import GREY, distribution, parameters_of
from scipy import integrate, stats
from scipy.special import expit

from vae.likelihoods import LIKELIHOODS


def pixel_levels(name):
    """Pixels among which each likelihood's own kind are."""
    return torch.tensor([0, 17, 100, 255]) / 255 if name != "bernoulli" else torch.tensor([0.0, 1.0])


def oracle(name, numbers, x):
    """The log-density [..., 1, H, W] by scipy or by the definition."""
    first, x = numbers[0].numpy(), x.double().numpy()
    if name == "bernoulli":
        return stats.bernoulli.logpmf(x, expit(first))
    if name == "continuous_bernoulli":
        total = [integrate.quad(lambda t, logit=logit: np.exp(logit * t), 0, 1)[0] for logit in first.flat]
        return first * x - np.log(total).reshape(first.shape)
    if name == "gaussian":
        return stats.norm(expit(first), np.sqrt(np.exp(numbers[1].numpy()) + 0.01**2)).logpdf(x)
    if name == "gaussian_fixed":
        return stats.norm(expit(first), 0.3).logpdf(x)
    if name == "discretized_logistic":
        logistic = stats.logistic(expit(first), np.exp(numbers[1].numpy() - 2))
        low, high = np.where(x < 0.5 / 255, -np.inf, x - 0.5 / 255), np.where(x > 254.5 / 255, np.inf, x + 0.5 / 255)
        return np.log(
            np.where(x < expit(first), logistic.cdf(high) - logistic.cdf(low), logistic.sf(low) - logistic.sf(high))
        )
    p = np.exp(first) / np.exp(first).sum(-3, keepdims=True)
    chosen = sum(np.where(np.isclose(x * 255, level), p[..., [k], :, :], 0) for k, (level,) in enumerate(GREY))
    return np.log((1 - 1e-5) * chosen + 1e-5 / 256)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_log_density_meets_its_oracle(name):
    numbers = parameters_of(name, 50, 1, 2, 3)
    levels = pixel_levels(name)
    x = levels[torch.randint(len(levels), (50, 1, 2, 3))].double()
    found = distribution(name, *numbers, image_shape=(1, 2, 3)).log_prob(x)
    assert found.shape == (50,)
    np.testing.assert_allclose(found, oracle(name, numbers, x).sum((1, 2, 3)), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_all_that_can_be_seen_has_probability_one(name):
    numbers = parameters_of(name, 1, 1, 1)

    def density(values):
        x = torch.as_tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)
        repeated = [number.expand(len(x), *number.shape) for number in numbers]
        return distribution(name, *repeated).log_prob(x).exp().numpy()

    if name == "bernoulli":
        total = density([0.0, 1.0]).sum()
    elif name in ("categorical", "discretized_logistic"):
        total = density(np.arange(256) / 255).sum()
    else:
        low, high = (0, 1) if name == "continuous_bernoulli" else (-60, 60)
        total = integrate.trapezoid(density(np.linspace(low, high, 400_001)), np.linspace(low, high, 400_001))
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_gradients_meet_finite_differences(name):
    numbers = [number.requires_grad_(True) for number in parameters_of(name, 3, 1, 2, 2)]
    levels = pixel_levels(name)
    x = levels[torch.randint(len(levels), (3, 1, 2, 2))].double()
    assert torch.autograd.gradcheck(lambda *n: distribution(name, *n, image_shape=(1, 2, 2)).log_prob(x), numbers)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("pixel", [0.0, 1.0])
@pytest.mark.parametrize("logit", [-80.0, 0.0, 80.0])
@pytest.mark.parametrize("log_var", [-20.0, 0.0, 20.0])
def test_extremes_are_finite(name, pixel, logit, log_var):
    values = [torch.full_like(number, logit, dtype=torch.float32) for number in parameters_of(name, 2, 1, 3, 3)]
    if len(values) == 2:
        values[1].fill_(log_var)
    elif name == "categorical":
        values[0][:, 1:] = log_var  # the first colour against the others
    values = [value.requires_grad_(True) for value in values]
    log_p = distribution(name, *values, image_shape=(1, 3, 3)).log_prob(torch.full((2, 1, 3, 3), pixel))
    log_p.sum().backward()
    assert torch.isfinite(log_p).all()
    assert all(torch.isfinite(value.grad).all() for value in values)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("logit", [-80.0, -0.21, -0.19, 0.0, 0.05, 3.0, 80.0])
def test_the_picture_is_the_mean(name, logit):
    if name == "categorical":
        p_x = distribution(name, torch.tensor([0.0, 1.0, logit, -1.0]).reshape(4, 1, 1))
        assert p_x.mode.item() == pytest.approx(100 / 255 if logit > 1 else 17 / 255)
        return
    numbers = [torch.tensor([[[value]]], dtype=torch.float64) for value in (logit, 0.5)]
    p_x = distribution(name, *numbers)
    if name == "bernoulli":
        expected = expit(logit)
    elif name == "discretized_logistic":
        x = torch.arange(256, dtype=torch.float64).reshape(-1, 1, 1, 1) / 255
        p = distribution(name, *[n.expand(256, 1, 1, 1) for n in numbers]).log_prob(x).exp()
        expected = (p * x.flatten()).sum().item()
    elif name == "continuous_bernoulli":
        x = np.linspace(0, 1, 200_001)
        weight = np.exp(logit * x - max(logit, 0))
        expected = integrate.simpson(weight * x, x=x) / integrate.simpson(weight, x=x)
    else:
        expected = expit(logit)
    assert p_x.mean.item() == pytest.approx(expected, abs=1e-6)


def test_continuous_bernoulli_does_not_saturate():
    for logit, pixel in ((-80.0, 0.0), (80.0, 1.0)):
        found = distribution("continuous_bernoulli", torch.tensor([[[logit]]])).log_prob(torch.full((1, 1, 1), pixel))
        assert found.item() == pytest.approx(np.log(80), abs=1e-5)


def test_a_colour_that_training_never_saw_keeps_its_share():
    p_x = distribution("categorical", torch.zeros(4, 1, 1))
    assert p_x.log_prob(torch.full((1, 1, 1), 3 / 255)).item() == pytest.approx(np.log(1e-5 / 256), rel=1e-6)
    assert p_x.log_prob(torch.full((1, 1, 1), 17 / 255)).item() == pytest.approx(np.log(0.25), abs=1e-4)


def test_colours_are_told_apart_in_every_channel():
    palette = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (255, 255, 255))
    logits = torch.tensor([3.0, 2.0, 1.0, 0.0]).reshape(4, 1, 1)  # in the order of the sorted palette
    p_x = distribution("categorical", logits, image_shape=(3, 1, 1), palette=palette)
    for colour, logit in zip(sorted(palette), (3, 2, 1, 0), strict=True):
        x = torch.tensor(colour).reshape(3, 1, 1) / 255
        assert p_x.log_prob(x).item() == pytest.approx(logit - logits.logsumexp(0).item(), abs=1e-4)
    assert (p_x.mode.flatten() * 255).round().tolist() == list(sorted(palette)[0])
