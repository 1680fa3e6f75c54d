"""Equation 1 as a figure: the true posterior, q(z|x), and numbers that add up."""

import re

import numpy as np
import pytest
import torch
from helpers import random_vae
from linear_gaussian import linear_gaussian

from vae.figures import FIGURES
from vae.figures.posterior import equation_1


def numbers(axes):
    """log p(x), ELBO and KL, as the panel has them."""
    return [float(number) for number in re.fullmatch(r"(\S+) = (\S+) \+ (\S+)", axes.get_title()).groups()]


def density(axes):
    """The latents [G, 2] of a panel's picture, and the share of the mass at each, [G]."""
    (shown,) = axes.images
    left, right, bottom, top = shown.get_extent()
    picture = np.asarray(shown.get_array(), dtype=float)
    first, second = (low + (np.arange(len(picture)) + 0.5) * (high - low) / len(picture)
                     for low, high in ((left, right), (bottom, top)))  # fmt: skip
    z = np.stack(np.meshgrid(first, second), -1).reshape(-1, 2)
    return z, picture.ravel() / picture.sum()


def test_the_equation_is_that_of_the_closed_form():
    torch.manual_seed(0)
    vae, x, exact = linear_gaussian(2, offset=0.3, num_images=3)
    weight, bias = (each.double().numpy() for each in (vae.likelihood.weight, vae.likelihood.bias))
    covariance = np.linalg.inv(np.eye(2) + weight.T @ weight / 0.8**2)
    means = (x.flatten(1).double().numpy() - bias) @ weight @ covariance / 0.8**2  # of p(z|x)
    q_z, inverse = vae.encode(x), np.linalg.inv(covariance)
    panels = FIGURES["posterior"](vae, x).axes
    assert len(panels) == 3
    for axes, log_p, true_mean, mean, scale in zip(panels, exact, means, q_z.mean, q_z.stddev, strict=True):
        shift, variances = true_mean - mean.numpy(), np.diag(scale.numpy() ** 2.0)
        divergence = 0.5 * (np.trace(inverse @ variances) + shift @ inverse @ shift - 2)
        divergence += 0.5 * np.log(np.linalg.det(covariance) / np.linalg.det(variances))
        np.testing.assert_allclose(numbers(axes), [log_p, log_p - divergence, divergence], atol=0.011)
        z, share = density(axes)
        np.testing.assert_allclose(share @ z, true_mean, atol=0.02)
        found = (z - true_mean).T @ ((z - true_mean) * share[:, None])
        np.testing.assert_allclose(found, covariance, atol=0.04 * covariance.max())
        for times, ellipse in enumerate(axes.patches, start=1):
            np.testing.assert_allclose(ellipse.center, mean, rtol=1e-5)
            np.testing.assert_allclose([ellipse.width, ellipse.height], 2 * times * scale, rtol=1e-5)


def test_the_equation_is_that_of_a_plain_grid():
    torch.manual_seed(0)
    vae = random_vae(hidden_dims=16)
    for head in (vae.posterior.mean, vae.posterior.log_var):
        head.weight.mul_(0.3)
    x = vae.decode(torch.randn(6, 2)).sample()
    q_z = vae.encode(x)
    line = torch.linspace(-14, 14, 401)
    z = torch.cartesian_prod(line, line)
    log_joint = torch.stack([vae.decode(z).log_prob(image) for image in x]) + vae.prior.log_prob(z)
    log_joint = log_joint.double().numpy() + 2 * np.log(0.07)
    log_p = np.log(np.exp(log_joint).sum(1))
    log_q = q_z.log_prob(z.unsqueeze(1)).T.double().numpy() + 2 * np.log(0.07)
    divergence = (np.exp(log_q) * (log_q - (log_joint - log_p[:, None]))).sum(1)
    panels = FIGURES["posterior"](vae, x).axes
    assert len(panels) == 6
    for k, axes in enumerate(panels):
        found = numbers(axes)
        np.testing.assert_allclose(found, [log_p[k], log_p[k] - divergence[k], divergence[k]], atol=0.011)
        assert found[0] == pytest.approx(found[1] + found[2], abs=1e-9)
        mean = np.exp(log_joint[k] - log_p[k]) @ z.numpy()
        places, share = density(axes)
        np.testing.assert_allclose(share @ places, mean, atol=0.05)


def test_an_error_that_two_decimals_do_not_hold_is_shown():
    assert equation_1(-1.006, -2.004, 0.01) == "-1.01 = -2.00 + 0.99"
    assert equation_1(-1.006, -2.004, 0.031) == "-1.01 = -2.00 + 0.99  (± 0.031)"
