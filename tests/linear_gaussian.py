"""A VAE whose log p(x) is known: p(x|z) = N(x; W z + b, s^2 I), so that p(x) = N(b, W W^T + s^2 I)."""

from math import inf

import numpy as np
import torch
from scipy import stats
from torch import nn
from torch.distributions import Independent, Normal

from vae import VAE
from vae.likelihoods import DiagonalGaussian, Likelihood

SHAPE = (1, 4, 6)
SIZE = 24


class LinearGaussian(Likelihood):
    """p(x|z) = N(x; W z + b, scale^2 I)."""

    num_parameters, value_range = SIZE, (-inf, inf)

    def __init__(self, weight, bias, scale):
        super().__init__()
        self.weight, self.bias, self.scale = weight, bias, scale

    def forward(self, z):
        return Independent(Normal((z @ self.weight.T + self.bias).unflatten(-1, SHAPE), self.scale), 3)


def linear_gaussian(latent_dim, scale=0.8, width=1.2, offset=0.15, num_images=8):
    """The VAE, images drawn from it, and their log p(x) by scipy.

    Args:
        scale: of the pixels, s.
        width: the posterior's scale, relative to that of the true one.
        offset: its mean less the true one.
    """
    weight, bias = torch.randn(SIZE, latent_dim) / latent_dim**0.5, torch.randn(SIZE)
    covariance = torch.linalg.inv(torch.eye(latent_dim) + weight.T @ weight / scale**2)
    gain = covariance @ weight.T / scale**2
    vae = VAE(SHAPE, latent_dim=latent_dim)
    vae.encoder, vae.decoder, vae.likelihood = nn.Flatten(), nn.Identity(), LinearGaussian(weight, bias, scale)
    vae.posterior = DiagonalGaussian(SIZE, latent_dim)
    log_var = (width**2 * covariance.diagonal()).log()
    for name, matrix, constant in (("mean", gain, offset - gain @ bias), ("log_var", torch.zeros_like(gain), log_var)):
        getattr(vae.posterior, name).load_state_dict({"weight": matrix, "bias": constant})
    x = vae.decode(torch.randn(num_images, latent_dim)).sample()
    exact = stats.multivariate_normal(bias, weight @ weight.T + scale**2 * np.eye(SIZE)).logpdf(x.flatten(1))
    return vae.requires_grad_(False), x, torch.from_numpy(exact)
