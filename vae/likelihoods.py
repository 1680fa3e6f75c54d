"""Heads: modules that map the features of a network to a distribution, q(z|x) or p(x|z).

A likelihood owns everything about pixels: it maps features to the parameters of p(x|z), whose `log_prob` is the
log-density of images in [0, 1], and `image` shows it. `output_layer` is the decoder's: `output_layer(n)` makes the
layer that maps its features to n numbers at each position.
"""

from collections.abc import Callable, Sequence
from math import log

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vae.distributions import (
    MAX_PIXEL_VALUE,
    ContinuousBernoulli,
    DiscretizedLogistic,
    PaletteCategorical,
    PixelBernoulli,
    colour_codes,
)
from vae.registry import Registry

OutputLayer = Callable[[int], nn.Module]


def at_least_float32(values: Tensor) -> Tensor:
    """In single precision at least: a density needs more digits than half precision has."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


class DiagonalGaussian(nn.Module):
    """The posterior q(z|x) = N(z; mu, sigma^2 I) of equation 9: features [..., F] -> event_shape [Z]."""

    def __init__(self, in_features: int, latent_dim: int):
        super().__init__()
        self.mean = nn.Linear(in_features, latent_dim)
        self.log_var = nn.Linear(in_features, latent_dim)

    def forward(self, features: Tensor) -> Independent:
        scale = (0.5 * at_least_float32(self.log_var(features))).exp()
        return Independent(Normal(at_least_float32(self.mean(features)), scale, validate_args=False), 1)


class Likelihood(nn.Module):
    """p(x|z): features -> a distribution with event_shape [C, H, W]."""

    num_parameters: int  # how many numbers make an image's distribution: what one sample costs in memory

    def log_prob_kind(self, binary: bool) -> str:
        """What `log_prob` is for pixels that are `binary` or else have 256 levels.

        Only a log-likelihood is the log of a probability, and can be told in bits.
        """
        raise NotImplementedError

    def image(self, p_x: Distribution) -> Tensor:
        """What is shown for p(x|z): its mean, values in [0, 1]."""
        return p_x.mean


class MeanLikelihood(Likelihood):
    """A likelihood whose first number at each position and channel is the logit of its mean, or nearly so."""

    def __init__(self, output_layer: OutputLayer, image_shape: Sequence[int]):
        super().__init__()
        self.logits = output_layer(image_shape[0])
        self.num_parameters = torch.Size(image_shape).numel()

    def init_output_bias(self, mean: Tensor) -> None:
        """Set the output's bias to the logits of the mean image, [C, H, W] in [0, 1]."""
        bias = self.logits[0].bias
        if bias.numel() != mean.numel():  # one bias a channel, under convolutions
            mean = mean.mean((1, 2))
        with torch.no_grad():
            bias.copy_(mean.clamp(0.01, 0.99).logit().flatten())


class BernoulliLikelihood(MeanLikelihood):
    """p(x|z) of binary pixels (Appendix C.1).

    Grey pixels are allowed; `log_prob` is then the negative cross-entropy, which is not a log-likelihood.
    """

    def forward(self, features: Tensor) -> Independent:
        return Independent(PixelBernoulli(logits=at_least_float32(self.logits(features)), validate_args=False), 3)

    def log_prob_kind(self, binary: bool) -> str:
        return "log-likelihood" if binary else "cross-entropy"


class ContinuousBernoulliLikelihood(MeanLikelihood):
    """p(x|z) of pixels in [0, 1]: the Bernoulli's cross-entropy made a proper density."""

    def forward(self, features: Tensor) -> Independent:
        return Independent(ContinuousBernoulli(at_least_float32(self.logits(features))), 3, validate_args=False)

    def log_prob_kind(self, binary: bool) -> str:
        return "log-density"


class GaussianLikelihood(MeanLikelihood):
    """p(x|z) of real pixels, with a mean and a log-variance for each (Appendix C.2).

    The mean is kept in (0, 1) by a sigmoid, as in the paper. The scale is sqrt(exp(log_var) + min_scale^2), the
    spread that the decoder predicts plus a floor: where a pixel never changes the density would grow without bound.

    Args:
        min_scale: the floor, in units of the pixels' range.
    """

    def __init__(self, output_layer: OutputLayer, image_shape: Sequence[int], min_scale: float):
        super().__init__(output_layer, image_shape)
        self.log_var = output_layer(image_shape[0])
        self.min_scale = min_scale
        self.num_parameters *= 2

    def forward(self, features: Tensor) -> Independent:
        scale = (at_least_float32(self.log_var(features)).exp() + self.min_scale**2).sqrt()
        return Independent(Normal(at_least_float32(self.logits(features)).sigmoid(), scale, validate_args=False), 3)

    def log_prob_kind(self, binary: bool) -> str:
        return "log-density"


class GaussianFixedLikelihood(MeanLikelihood):
    """p(x|z) of real pixels with one scale for all: the squared error as the log-density that it is.

    Args:
        scale: the standard deviation, in units of the pixels' range.
        learn_scale: whether it is learned from there on; then with the floor `min_scale`.
    """

    def __init__(
        self, output_layer: OutputLayer, image_shape: Sequence[int], scale: float, learn_scale: bool, min_scale: float
    ):
        super().__init__(output_layer, image_shape)
        self.min_scale = min_scale if learn_scale else 0.0
        log_var = 2 * log(scale)
        if learn_scale:
            self.log_var = nn.Parameter(torch.tensor(log_var))
        else:
            self.register_buffer("log_var", torch.tensor(log_var), persistent=False)

    def forward(self, features: Tensor) -> Independent:
        scale = (self.log_var.exp() + self.min_scale**2).sqrt()
        return Independent(Normal(at_least_float32(self.logits(features)).sigmoid(), scale, validate_args=False), 3)

    def log_prob_kind(self, binary: bool) -> str:
        return "log-density"


class DiscretizedLogisticLikelihood(MeanLikelihood):
    """p(x|z) of 8-bit pixels, channels on their own: a true log-likelihood of grey and colour images."""

    def __init__(self, output_layer: OutputLayer, image_shape: Sequence[int]):
        super().__init__(output_layer, image_shape)
        self.log_scale = output_layer(image_shape[0])
        self.num_parameters *= 2

    def forward(self, features: Tensor) -> Independent:
        # From an eighth of the range on: at first the scale must reach pixels that lie far from the mean.
        p_x = DiscretizedLogistic(
            at_least_float32(self.logits(features)).sigmoid(), at_least_float32(self.log_scale(features)) - 2
        )
        return Independent(p_x, 3, validate_args=False)

    def log_prob_kind(self, binary: bool) -> str:
        return "log-likelihood"


class CategoricalLikelihood(Likelihood):
    """p(x|z) of images with few colours: one of the palette's at each position, an exact object.

    The head is factored: a small vector at each position, then one map from such vectors to colours, shared by all.

    Args:
        palette: the colours of the training images, 8-bit values, one row of C a colour.
    """

    WIDTH = 16

    def __init__(self, output_layer: OutputLayer, image_shape: Sequence[int], palette: Sequence[Sequence[int]] | None):
        super().__init__()
        if not palette or any(len(colour) != image_shape[0] for colour in palette):
            raise ValueError(f"categorical: expected a palette of colours of {image_shape[0]} values, got {palette}")
        colours = torch.tensor(sorted(palette)) / MAX_PIXEL_VALUE
        self.register_buffer("palette", colours, persistent=False)
        self.register_buffer("codes", colour_codes(colours), persistent=False)
        self.vectors = output_layer(self.WIDTH)
        self.colours = nn.Linear(self.WIDTH, len(colours))
        self.num_parameters = len(colours) * image_shape[1] * image_shape[2]

    def forward(self, features: Tensor) -> PaletteCategorical:
        return PaletteCategorical(
            at_least_float32(self.colours(self.vectors(features).movedim(-3, -1))), self.palette, self.codes
        )

    def log_prob_kind(self, binary: bool) -> str:
        return "log-likelihood"

    def image(self, p_x: PaletteCategorical) -> Tensor:
        """The most probable colour at each position."""
        return p_x.mode


LIKELIHOODS = Registry(
    "likelihood",
    {
        "bernoulli": BernoulliLikelihood,
        "continuous_bernoulli": ContinuousBernoulliLikelihood,
        "gaussian": GaussianLikelihood,
        "gaussian_fixed": GaussianFixedLikelihood,
        "discretized_logistic": DiscretizedLogisticLikelihood,
        "categorical": CategoricalLikelihood,
    },
)
