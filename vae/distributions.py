"""Heads: modules that turn the features of a trunk into a distribution.

A likelihood owns everything about pixels: it maps features to the parameters of p(x|z), and the distribution that
it returns gives the log-density of pixels in [0, 1] (`log_prob`) and the picture (`mean`).
"""

from math import prod

from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal

from vae.registry import Registry


class DiagonalGaussian(nn.Module):
    """The posterior q(z|x) = N(z; mu, sigma^2 I) of equation 9: features [..., F] -> event_shape [Z]."""

    def __init__(self, in_features: int, latent_dim: int):
        super().__init__()
        self.mean = nn.Linear(in_features, latent_dim)
        self.log_var = nn.Linear(in_features, latent_dim)

    def forward(self, features: Tensor) -> Independent:
        scale = (0.5 * self.log_var(features)).exp()
        return Independent(Normal(self.mean(features), scale, validate_args=False), 1)


class BernoulliLikelihood(nn.Module):
    """p(x|z) of binary pixels (Appendix C.1): features [..., F] -> event_shape [C, H, W].

    Grey pixels are allowed; `log_prob` is then the negative cross-entropy, which is not a log-likelihood.
    """

    def __init__(self, in_features: int, image_shape: tuple[int, int, int]):
        super().__init__()
        self.image_shape = image_shape
        self.logits = nn.Linear(in_features, prod(image_shape))

    def forward(self, features: Tensor) -> Independent:
        logits = self.logits(features).unflatten(-1, self.image_shape)
        return Independent(Bernoulli(logits=logits, validate_args=False), 3)


class GaussianLikelihood(nn.Module):
    """p(x|z) of real pixels, with a mean and a log-variance for each (Appendix C.2): [..., F] -> event_shape [C, H, W].

    The mean is kept in (0, 1) by a sigmoid, as in the paper. The scale is sqrt(exp(log_var) + min_scale^2), the
    spread that the decoder predicts plus a floor: where a pixel never changes the density would grow without bound.

    Args:
        min_scale: the floor, in units of the pixels' range; 0.01 is two and a half of 255 grey levels.
    """

    def __init__(self, in_features: int, image_shape: tuple[int, int, int], min_scale: float = 0.01):
        super().__init__()
        self.image_shape = image_shape
        self.min_scale = min_scale
        self.mean = nn.Linear(in_features, prod(image_shape))
        self.log_var = nn.Linear(in_features, prod(image_shape))

    def forward(self, features: Tensor) -> Independent:
        mean = self.mean(features).sigmoid().unflatten(-1, self.image_shape)
        scale = (self.log_var(features).exp() + self.min_scale**2).sqrt().unflatten(-1, self.image_shape)
        return Independent(Normal(mean, scale, validate_args=False), 3)


LIKELIHOODS = Registry("likelihood", {"bernoulli": BernoulliLikelihood, "gaussian": GaussianLikelihood})
