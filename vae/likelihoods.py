"""Heads: modules that map the features of a network to a distribution, q(z|x) or p(x|z).

A likelihood owns everything about pixels: it maps features to the parameters of p(x|z), whose `log_prob` is the
log-density of images in [0, 1], and `image` shows it. `output_layer` is the decoder's: `output_layer(n)` makes the
layer that maps its features to n parameters at each position.
"""

from collections.abc import Callable, Sequence
from math import log

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import linear

from vae.distributions import (
    MAX_PIXEL_VALUE,
    ContinuousBernoulli,
    DiscretizedLogistic,
    PaletteCategorical,
    PixelBernoulli,
    colour_codes,
)

OutputLayer = Callable[[int], nn.Module]
MAX_PAIRS = 2**22  # parameters of p(x|z) times images that are computed together

# Beyond these bounds float32 densities or their gradients overflow. They are far outside of what training reaches, so
# that no number of a trained model changes.
MIN_LOG_VAR, MAX_LOG_VAR = -30.0, 20.0  # those of latent diffusion's autoencoders, arXiv 2112.10752
# PixelCNN++ stops at -7 for pixels in [-1, 1], where a pixel that never changes still costs 0.03 nats. At -15 the
# probability of its bin is 1 in float32.
MIN_LOG_SCALE, MAX_LOG_SCALE = -15.0, 10.0


def at_least_float32(values: Tensor) -> Tensor:
    """In single precision at least: a density needs more digits than half precision has."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def straight_through_clamp(values: Tensor, low: float, high: float) -> Tensor:
    """`values.clamp(low, high)`, but with a gradient of 1 everywhere: what is beyond a bound can be trained back."""
    return values.clamp(low, high).detach() + (values - values.detach())


def bounded_log_var(log_var: Tensor) -> Tensor:
    """A log-variance in single precision at least, whose exponential is neither 0 nor infinite."""
    return straight_through_clamp(at_least_float32(log_var), MIN_LOG_VAR, MAX_LOG_VAR)


class DiagonalGaussian(nn.Module):
    """The posterior q(z|x) = N(z; mu, sigma^2 I) of equation 9: features [..., F] -> event_shape [Z]."""

    def __init__(self, in_features: int, latent_dim: int):
        super().__init__()
        self.mean = nn.Linear(in_features, latent_dim)
        self.log_var = nn.Linear(in_features, latent_dim)

    def forward(self, features: Tensor) -> Independent:
        weight = torch.cat([self.mean.weight, self.log_var.weight])  # one product: small ones cost as much as large
        bias = torch.cat([self.mean.bias, self.log_var.bias])
        mean, log_var = linear(features, weight, bias).chunk(2, dim=-1)
        scale = (0.5 * bounded_log_var(log_var)).exp()
        return Independent(Normal(at_least_float32(mean), scale, validate_args=False), 1)


class Likelihood(nn.Module):
    """p(x|z): features -> a distribution with event_shape [C, H, W]."""

    num_parameters: int  # of one image's distribution: what one sample costs in memory
    value_range = (0.0, 1.0)  # of images; samples of a Gaussian leave it, but its mean is in it

    def output_bias(self) -> nn.Parameter:
        """The parameter that `init_output_bias` sets.

        Raises:
            ValueError: there is none.
        """
        raise ValueError("init_output_bias: this likelihood has no mean that the bias could start at")

    def log_prob_kind(self, binary: bool) -> str:
        """What `log_prob` is for pixels that are `binary` or else have 256 levels.

        Only a log-likelihood is the log of a probability, and can be given in bits.
        """
        raise NotImplementedError

    def image(self, p_x: Distribution) -> Tensor:
        """The image of p(x|z): its mean, values in [0, 1]."""
        return p_x.mean

    def log_prob_of_all(self, p_x: Distribution, x: Tensor) -> Tensor:
        """log p(x|z) of all images [B, C, H, W] under all p(x|z) of a batch_shape [G, 1]: [G, B]."""
        at_once = max(1, MAX_PAIRS // (p_x.batch_shape[0] * self.num_parameters))
        return torch.cat([p_x.log_prob(some) for some in x.split(at_once)], dim=1)


class MeanLikelihood(Likelihood):
    """A likelihood whose first parameter at each position and channel is the logit of its mean, or nearly so."""

    def __init__(self, output_layer: OutputLayer, image_shape: Sequence[int]):
        super().__init__()
        self.logits = output_layer(image_shape[0])
        self.num_channels = image_shape[0]
        self.num_parameters = self.num_pixels = torch.Size(image_shape).numel()

    def output_bias(self) -> nn.Parameter:
        """The last bias of the output layer: one value a pixel, or under convolutions one a channel."""
        biases = [value for name, value in self.logits.named_parameters() if name.rpartition(".")[2] == "bias"]
        if not biases or biases[-1].numel() not in (self.num_pixels, self.num_channels):
            found = f"{biases[-1].numel()} values" if biases else "none"
            raise ValueError(
                "init_output_bias: expected the output layer's last bias to have "
                f"{self.num_pixels} values (one a pixel) or {self.num_channels} (one a channel), got {found}"
            )
        return biases[-1]

    def init_output_bias(self, mean: Tensor) -> None:
        """Set the output's bias to the logits of the mean image, [C, H, W] in [0, 1].

        Raises:
            ValueError: as `output_bias`.
        """
        bias = self.output_bias()
        if bias.numel() != mean.numel():
            mean = mean.mean((1, 2))
        with torch.no_grad():
            bias.copy_(self.logits_of_mean(mean.clamp(0.01, 0.99)).view_as(bias))

    def logits_of_mean(self, mean: Tensor) -> Tensor:
        """The logits at which p(x|z) has this mean."""
        return mean.logit()


class LogitLikelihood(MeanLikelihood):
    """A likelihood whose log-density is linear in the image, with the logits as its slope."""

    def log_prob_of_all(self, p_x: Distribution, x: Tensor) -> Tensor:
        x = x.to(p_x.base_dist.logits.dtype)
        at_zero = p_x.log_prob(x.new_zeros(x.shape[1:]))  # [G, 1]
        return torch.addmm(at_zero, p_x.base_dist.logits.flatten(1), x.flatten(1).T)


class BernoulliLikelihood(LogitLikelihood):
    """p(x|z) of binary pixels (Appendix C.1).

    Grey pixels are allowed; `log_prob` is then the negative cross-entropy, which is not a log-likelihood.
    """

    def forward(self, features: Tensor) -> Independent:
        return Independent(PixelBernoulli(at_least_float32(self.logits(features)), validate_args=False), 3)

    def log_prob_kind(self, binary: bool) -> str:
        return "log-likelihood" if binary else "cross-entropy"


class ContinuousBernoulliLikelihood(LogitLikelihood):
    """p(x|z) of pixels in [0, 1]: the Bernoulli's cross-entropy made a proper density."""

    def forward(self, features: Tensor) -> Independent:
        return Independent(ContinuousBernoulli(at_least_float32(self.logits(features)), validate_args=False), 3)

    def logits_of_mean(self, mean: Tensor) -> Tensor:
        """By bisection: the mean rises with the logit and has no inverse in closed form."""
        logits = torch.zeros_like(mean)
        for halvings in range(1, 40):
            too_low = ContinuousBernoulli(logits).mean < mean
            logits += torch.where(too_low, 1, -1) * 256 / 2**halvings  # from -256 to 256, where the mean is 0.996
        return logits

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
        scale = (bounded_log_var(self.log_var(features)).exp() + self.min_scale**2).sqrt()
        return Independent(Normal(at_least_float32(self.logits(features)).sigmoid(), scale, validate_args=False), 3)

    def log_prob_kind(self, binary: bool) -> str:
        return "log-density"


class GaussianFixedLikelihood(MeanLikelihood):
    """p(x|z) of real pixels with one scale for all: the squared error as the log-density that it is.

    Args:
        scale: the standard deviation, in units of the pixels' range.
        learn_scale: whether training changes it; then with the floor `min_scale`.

    Raises:
        ValueError: a scale that is to be learned is not above its floor.
    """

    def __init__(
        self, output_layer: OutputLayer, image_shape: Sequence[int], scale: float, learn_scale: bool, min_scale: float
    ):
        super().__init__(output_layer, image_shape)
        self.scale, self.min_scale = scale, min_scale
        if learn_scale and scale <= min_scale:
            raise ValueError(f"scale: expected more than min_scale, {min_scale}, as it is learned, got {scale}")
        self.log_var = nn.Parameter(torch.tensor(log(scale**2 - min_scale**2))) if learn_scale else None

    def forward(self, features: Tensor) -> Independent:
        loc = at_least_float32(self.logits(features)).sigmoid()
        if self.log_var is None:
            scale = loc.new_full((), self.scale)  # a buffer would be rounded in a model of half precision
        else:
            scale = (bounded_log_var(self.log_var).exp() + self.min_scale**2).sqrt()
        return Independent(Normal(loc, scale, validate_args=False), 3)

    def log_prob_kind(self, binary: bool) -> str:
        return "log-density"


class DiscretizedLogisticLikelihood(MeanLikelihood):
    """p(x|z) of 8-bit pixels, channels on their own: a true log-likelihood of grey and colour images."""

    def __init__(self, output_layer: OutputLayer, image_shape: Sequence[int]):
        super().__init__(output_layer, image_shape)
        self.log_scale = output_layer(image_shape[0])
        self.num_parameters *= 2

    def forward(self, features: Tensor) -> Independent:
        # It starts at an eighth of the range: at first the scale must reach pixels that lie far from the mean.
        log_scale = straight_through_clamp(at_least_float32(self.log_scale(features)) - 2, MIN_LOG_SCALE, MAX_LOG_SCALE)
        loc = at_least_float32(self.logits(features)).sigmoid()
        return Independent(DiscretizedLogistic(loc, log_scale, validate_args=False), 3)

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
        codes = colour_codes(torch.tensor(sorted(palette, key=tuple)) / MAX_PIXEL_VALUE)
        self.register_buffer("codes", codes, persistent=False)  # integers: a model in half precision keeps them
        self.vectors = output_layer(self.WIDTH)
        self.colours = nn.Linear(self.WIDTH, len(codes))
        self.num_channels = image_shape[0]
        self.num_parameters = len(codes) * image_shape[1] * image_shape[2]

    def forward(self, features: Tensor) -> PaletteCategorical:
        logits = self.colours(self.vectors(features).movedim(-3, -1))
        return PaletteCategorical(at_least_float32(logits), self.codes, self.num_channels, validate_args=False)

    def log_prob_kind(self, binary: bool) -> str:
        return "log-likelihood"

    def image(self, p_x: PaletteCategorical) -> Tensor:
        """The most probable colour at each position."""
        return p_x.mode

    def log_prob_of_all(self, p_x: PaletteCategorical, x: Tensor) -> Tensor:
        return p_x.log_prob_of_all(x)


LIKELIHOODS = {
    "bernoulli": BernoulliLikelihood,
    "continuous_bernoulli": ContinuousBernoulliLikelihood,
    "gaussian": GaussianLikelihood,
    "gaussian_fixed": GaussianFixedLikelihood,
    "discretized_logistic": DiscretizedLogisticLikelihood,
    "categorical": CategoricalLikelihood,
}


def likelihood_name(likelihood: Likelihood) -> str:
    """Its name in LIKELIHOODS, as in --model.likelihood; of one that is not registered, that of its class."""
    names = (name for name, kind in LIKELIHOODS.items() if type(likelihood) is kind)
    return next(names, type(likelihood).__name__)
