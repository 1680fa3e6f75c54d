"""Heads: modules that turn the features of a trunk into a distribution.

A likelihood owns everything about pixels: it maps features to the parameters of p(x|z); the distribution that it
returns gives the log-density of pictures in [0, 1] (`log_prob`), and `picture` shows it. `pixels` is the decoder's:
it makes the layer that turns features into so many numbers at each position.
"""

from collections.abc import Callable, Sequence
from math import log

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal
from torch.nn.functional import cross_entropy, logsigmoid

from vae.registry import Registry

GREYS = 255  # the largest of 8-bit values
Pixels = Callable[[int], nn.Module]


def exact(numbers: Tensor) -> Tensor:
    """In single precision at least: a density needs more digits than half precision has."""
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


class DiagonalGaussian(nn.Module):
    """The posterior q(z|x) = N(z; mu, sigma^2 I) of equation 9: features [..., F] -> event_shape [Z]."""

    def __init__(self, in_features: int, latent_dim: int):
        super().__init__()
        self.mean = nn.Linear(in_features, latent_dim)
        self.log_var = nn.Linear(in_features, latent_dim)

    def forward(self, features: Tensor) -> Independent:
        scale = (0.5 * exact(self.log_var(features))).exp()
        return Independent(Normal(exact(self.mean(features)), scale, validate_args=False), 1)


class Likelihood(nn.Module):
    """p(x|z): features -> a distribution with event_shape [C, H, W]."""

    numbers: int  # how many numbers make a picture's distribution: what one sample costs in memory

    def measure(self, binary: bool) -> str:
        """What `log_prob` is for pixels that are `binary` or else have 256 levels.

        Only a log-likelihood is the log of a probability, and can be told in bits.
        """
        raise NotImplementedError

    def picture(self, p_x: Distribution) -> Tensor:
        """What is shown for p(x|z): its mean, values in [0, 1]."""
        return p_x.mean


class MeanLikelihood(Likelihood):
    """A likelihood whose first number at each position and channel is the logit of its mean, or nearly so."""

    def __init__(self, pixels: Pixels, image_shape: Sequence[int]):
        super().__init__()
        self.logits = pixels(image_shape[0])
        self.numbers = torch.Size(image_shape).numel()

    def start_at(self, mean: Tensor) -> None:
        """Set the output's bias to the logits of the mean picture, [C, H, W] in [0, 1]."""
        bias = self.logits[0].bias
        if bias.numel() != mean.numel():  # one bias a channel, under convolutions
            mean = mean.mean((1, 2))
        with torch.no_grad():
            bias.copy_(mean.clamp(0.01, 0.99).logit().flatten())


class PixelBernoulli(Bernoulli):
    """torch's Bernoulli, with a log-density that takes a fifth of the time.

    x l - softplus(l) = (x - 1/2) l - |l| / 2 + log sigmoid(|l|), in which the last argument lies in [1/2, 1): `log` is
    exact enough there, to 1e-7, and ten times as fast as `log1p`. Values between 0 and 1 are taken as they are.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        size = self.logits.abs()
        return torch.addcmul(size.sigmoid().log(), value - 0.5, self.logits).sub(size, alpha=0.5)


class BernoulliLikelihood(MeanLikelihood):
    """p(x|z) of binary pixels (Appendix C.1).

    Grey pixels are allowed; `log_prob` is then the negative cross-entropy, which is not a log-likelihood.
    """

    def forward(self, features: Tensor) -> Independent:
        return Independent(PixelBernoulli(logits=exact(self.logits(features)), validate_args=False), 3)

    def measure(self, binary: bool) -> str:
        return "log-likelihood" if binary else "cross-entropy"


class ContinuousBernoulli(Distribution):
    """Density exp(l x) / A(l) on [0, 1], A(l) the integral (Loaiza-Ganem & Cunningham, arXiv 1907.06845).

    log A(l) = l / 2 + log(sinh(u) / u) with u = |l| / 2, for which torch's own class has an expansion that saturates:
    here it is exact at any logit.
    """

    def __init__(self, logits: Tensor):
        self.logits = logits
        super().__init__(logits.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        u = 0.5 * self.logits.abs()
        small = u < 0.1
        v = torch.where(small, 1.0, u)  # keeps the gradient of the branch that is not taken finite
        large_branch = v + torch.log1p(-torch.exp(-2 * v)) - torch.log(2 * v)
        w = torch.where(small, u, 0.0).square()
        small_branch = w * (1 / 6 - w * (1 / 180 - w * (1 / 2835 - w / 37800)))
        return (value - 0.5) * self.logits - torch.where(small, small_branch, large_branch)

    @property
    def mean(self) -> Tensor:
        half = 0.5 * self.logits  # 1/2 + (coth(h) - 1/h) / 2 with h = l / 2
        small = half.abs() < 0.1
        h = torch.where(small, 1.0, half)
        large_branch = 1 / torch.tanh(h) - 1 / h
        small_branch = half * (1 / 3 - half.square() * (1 / 45 - 2 * half.square() / 945))
        return 0.5 + 0.5 * torch.where(small, small_branch, large_branch)


class ContinuousBernoulliLikelihood(MeanLikelihood):
    """p(x|z) of pixels in [0, 1]: the Bernoulli's cross-entropy made a proper density."""

    def forward(self, features: Tensor) -> Independent:
        return Independent(ContinuousBernoulli(exact(self.logits(features))), 3, validate_args=False)

    def measure(self, binary: bool) -> str:
        return "log-density"


class GaussianLikelihood(MeanLikelihood):
    """p(x|z) of real pixels, with a mean and a log-variance for each (Appendix C.2).

    The mean is kept in (0, 1) by a sigmoid, as in the paper. The scale is sqrt(exp(log_var) + min_scale^2), the
    spread that the decoder predicts plus a floor: where a pixel never changes the density would grow without bound.

    Args:
        min_scale: the floor, in units of the pixels' range.
    """

    def __init__(self, pixels: Pixels, image_shape: Sequence[int], min_scale: float):
        super().__init__(pixels, image_shape)
        self.log_var = pixels(image_shape[0])
        self.min_scale = min_scale
        self.numbers *= 2

    def forward(self, features: Tensor) -> Independent:
        scale = (exact(self.log_var(features)).exp() + self.min_scale**2).sqrt()
        return Independent(Normal(exact(self.logits(features)).sigmoid(), scale, validate_args=False), 3)

    def measure(self, binary: bool) -> str:
        return "log-density"


class GaussianFixedLikelihood(MeanLikelihood):
    """p(x|z) of real pixels with one scale for all: the squared error as the log-density that it is.

    Args:
        scale: the standard deviation, in units of the pixels' range.
        learn_scale: whether it is learned from there on; then with the floor `min_scale`.
    """

    def __init__(self, pixels: Pixels, image_shape: Sequence[int], scale: float, learn_scale: bool, min_scale: float):
        super().__init__(pixels, image_shape)
        self.min_scale = min_scale if learn_scale else 0.0
        log_var = 2 * log(scale)
        if learn_scale:
            self.log_var = nn.Parameter(torch.tensor(log_var))
        else:
            self.register_buffer("log_var", torch.tensor(log_var), persistent=False)

    def forward(self, features: Tensor) -> Independent:
        scale = (self.log_var.exp() + self.min_scale**2).sqrt()
        return Independent(Normal(exact(self.logits(features)).sigmoid(), scale, validate_args=False), 3)

    def measure(self, binary: bool) -> str:
        return "log-density"


class DiscretizedLogistic(Distribution):
    """The probability of an 8-bit value: a logistic density over its bin, the tails in the outermost bins.

    Salimans et al., arXiv 1701.05517, equation 2 with one component. The difference of two sigmoids at a < b is taken
    as sigmoid(b) sigmoid(-a) (1 - exp(a - b)), each factor by its logarithm, so nothing underflows.
    """

    def __init__(self, loc: Tensor, log_scale: Tensor):
        self.loc, self.log_scale = loc, log_scale
        super().__init__(loc.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        inverse_scale = (-self.log_scale).exp()
        middle, half_bin = (value - self.loc) * inverse_scale, 0.5 / GREYS * inverse_scale
        below_upper, above_lower = logsigmoid(middle + half_bin), logsigmoid(half_bin - middle)
        within = torch.log(-torch.expm1(-2 * half_bin))
        inside = below_upper + above_lower + within
        outermost = torch.where(value < 0.5 / GREYS, below_upper, above_lower)
        return torch.where((value - 0.5).abs() > 0.5 - 0.5 / GREYS, outermost, inside)

    @property
    def mean(self) -> Tensor:
        """The sum over 1 / 255, 2 / 255, ... of the probability to reach it, over 255."""
        inverse_scale = (-self.log_scale).exp()
        reached = [torch.sigmoid((self.loc - (level - 0.5) / GREYS) * inverse_scale) for level in range(1, GREYS + 1)]
        return torch.stack(reached).mean(0)


class DiscretizedLogisticLikelihood(MeanLikelihood):
    """p(x|z) of 8-bit pixels, channels on their own: a true log-likelihood of grey and colour pictures."""

    def __init__(self, pixels: Pixels, image_shape: Sequence[int]):
        super().__init__(pixels, image_shape)
        self.log_scale = pixels(image_shape[0])
        self.numbers *= 2

    def forward(self, features: Tensor) -> Independent:
        # From an eighth of the range on: at first the scale must reach pixels that lie far from the mean.
        p_x = DiscretizedLogistic(exact(self.logits(features)).sigmoid(), exact(self.log_scale(features)) - 2)
        return Independent(p_x, 3, validate_args=False)

    def measure(self, binary: bool) -> str:
        return "log-likelihood"


class PaletteCategorical(Distribution):
    """One of a palette's colours at each position; with a small probability, any 8-bit colour at all.

    Without that second part a colour that training never saw would have probability 0. With it such a colour has
    `STRAY` / 256^C, and the whole still sums to one over all 256^C colours.

    Args:
        logits: of the palette's colours, [..., H, W, N].
        palette: the colours, [N, C] in [0, 1], sorted by `codes`.
        codes: each colour as one whole number, ascending, [N].
    """

    STRAY = 1e-5

    def __init__(self, logits: Tensor, palette: Tensor, codes: Tensor):
        self.logits, self.palette, self.codes = logits, palette, codes
        *batch_shape, height, width, _ = logits.shape
        super().__init__(torch.Size(batch_shape), torch.Size((palette.shape[1], height, width)), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        codes = colour_codes(value.movedim(-3, -1))  # [..., H, W]
        place = torch.searchsorted(self.codes, codes).clamp(max=len(self.codes) - 1)
        known = self.codes[place] == codes
        places = place.expand(self.logits.shape[:-1])
        log_p = -cross_entropy(self.logits.flatten(0, -2), places.flatten(), reduction="none").view_as(places)
        stray = log(self.STRAY) - self.palette.shape[1] * log(GREYS + 1)
        drawn = torch.where(known, log_p + log(1 - self.STRAY), -torch.inf)
        return torch.logaddexp(drawn, torch.full_like(drawn, stray)).sum((-2, -1))

    @property
    def mode(self) -> Tensor:
        return self.palette[self.logits.argmax(-1)].movedim(-1, -3)


def colour_codes(colours: Tensor) -> Tensor:
    """Colours [..., C] in [0, 1] as whole numbers in the order of their 8-bit values: [...]."""
    values = (colours * GREYS).round().long()
    return sum(value << 8 * place for place, value in enumerate(reversed(values.unbind(-1))))


class CategoricalLikelihood(Likelihood):
    """p(x|z) of pictures with few colours: one of the palette's at each position, an exact object.

    The head is factored: a small vector at each position, then one map from such vectors to colours, shared by all.

    Args:
        palette: the colours of the training pictures, 8-bit values, one row of C a colour.
    """

    WIDTH = 16

    def __init__(self, pixels: Pixels, image_shape: Sequence[int], palette: Sequence[Sequence[int]] | None):
        super().__init__()
        if not palette or any(len(colour) != image_shape[0] for colour in palette):
            raise ValueError(f"categorical: expected a palette of colours of {image_shape[0]} values, got {palette}")
        colours = torch.tensor(sorted(palette)) / GREYS
        self.register_buffer("palette", colours, persistent=False)
        self.register_buffer("codes", colour_codes(colours), persistent=False)
        self.vectors = pixels(self.WIDTH)
        self.colours = nn.Linear(self.WIDTH, len(colours))
        self.numbers = len(colours) * image_shape[1] * image_shape[2]

    def forward(self, features: Tensor) -> PaletteCategorical:
        return PaletteCategorical(exact(self.colours(self.vectors(features).movedim(-3, -1))), self.palette, self.codes)

    def measure(self, binary: bool) -> str:
        return "log-likelihood"

    def picture(self, p_x: PaletteCategorical) -> Tensor:
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
