"""The distributions over pixels that torch.distributions lacks, or has too slow or inexact."""

from collections.abc import Callable, Sequence
from math import exp, log
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, constraints
from torch.nn.functional import cross_entropy, logsigmoid

MAX_PIXEL_VALUE = 255  # the largest of 8-bit values


class _EightBit(constraints.Constraint):
    """The 8-bit values, divided by 255."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        level = MAX_PIXEL_VALUE * value
        return (value >= 0) & (value <= 1) & ((level - level.round()).abs() < 1e-3)


class PixelDistribution(Distribution):
    """What the distributions here share: `expand`, and validation.

    The heads switch validation off: it takes time, and refuses grey pixels under a Bernoulli.
    """

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        new = self._get_checked_instance(type(self), _instance)
        vars(new).update(vars(self))
        for name, constraint in self.arg_constraints.items():
            parameter = getattr(self, name)
            own_shape = parameter.shape[parameter.ndim - constraint.event_dim :]
            setattr(new, name, parameter.expand(*batch_shape, *own_shape))
        new._batch_shape = torch.Size(batch_shape)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return self._log_prob(value)

    def _log_prob(self, value: Tensor) -> Tensor:
        raise NotImplementedError


class LogitDistribution(PixelDistribution):
    """One whose `log_prob` is linear in the value, with the logit as its slope: [...]."""

    arg_constraints = {"logits": constraints.real}

    def __init__(self, logits: Tensor, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    @property
    def mode(self) -> Tensor:
        return (self.logits > 0).to(self.logits.dtype)

    def entropy(self) -> Tensor:
        return -self._log_prob(self.mean)


class PixelBernoulli(LogitDistribution):
    """A pixel that is 0 or 1: x l - log(1 + e^l) for the logit l.

    `log_prob` is also defined between 0 and 1, without validation. It takes a third of the time of torch's Bernoulli in
    evaluation.
    """

    support = constraints.boolean

    def _log_prob(self, value: Tensor) -> Tensor:
        return torch.addcmul(logsigmoid(-self.logits), value, self.logits)

    @property
    def mean(self) -> Tensor:
        return self.logits.sigmoid()

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.mean.expand(self._extended_shape(sample_shape)).bernoulli()


class ContinuousBernoulli(LogitDistribution):
    """Density exp(l x) / A(l) on [0, 1], A(l) the integral (Loaiza-Ganem & Cunningham, arXiv 1907.06845).

    torch's class computes everything from a clamped probability and saturates. Here all is a function of the logit l,
    exact at any logit, with an expansion around 0. With h = l / 2: log A(l) = h + log(sinh(h) / h).
    """

    support = constraints.unit_interval

    def _log_prob(self, value: Tensor) -> Tensor:
        u = 0.5 * self.logits.abs()
        small = u < 0.1
        v = torch.where(small, 1.0, u)  # keeps the gradient of the branch that is not taken finite
        large_branch = v + torch.log1p(-torch.exp(-2 * v)) - torch.log(2 * v)
        w = torch.where(small, u, 0.0).square()
        small_branch = w * (1 / 6 - w * (1 / 180 - w * (1 / 2835 - w / 37800)))
        return (value - 0.5) * self.logits - torch.where(small, small_branch, large_branch)

    @property
    def mean(self) -> Tensor:
        """1/2 + (coth(h) - 1/h) / 2."""
        half = 0.5 * self.logits
        small = half.abs() < 0.1
        h = torch.where(small, 1.0, half)
        large_branch = 1 / torch.tanh(h) - 1 / h
        small_branch = half * (1 / 3 - half.square() * (1 / 45 - 2 * half.square() / 945))
        return 0.5 + 0.5 * torch.where(small, small_branch, large_branch)

    @property
    def variance(self) -> Tensor:
        """(1/h^2 - 1/sinh(h)^2) / 4."""
        square = (0.5 * self.logits).square()
        small = square < 0.04
        w = torch.where(small, 1.0, square)
        large_branch = 1 / w - 1 / w.sqrt().sinh().square()
        small_branch = 1 / 3 - square * (1 / 15 - square * (2 / 189 - square / 675))
        return 0.25 * torch.where(small, small_branch, large_branch)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """By the inverse of the distribution function at -|l|, mirrored for positive logits: nothing overflows."""
        logits = self.logits.expand(self._extended_shape(sample_shape))
        size = logits.abs().clamp(min=1e-6)  # as good as uniform
        x = (torch.log1p(torch.rand_like(size) * torch.expm1(-size)) / -size).clamp(max=1)
        return torch.where(logits > 0, 1 - x, x)


class DiscretizedLogistic(PixelDistribution):
    """The probability of an 8-bit value: a logistic density over its bin, the tails in the outermost bins.

    Salimans et al., arXiv 1701.05517, equation 2 with one component. The difference of two sigmoids at a < b is taken
    as sigmoid(b) sigmoid(-a) (1 - exp(a - b)), each factor by its logarithm, so nothing underflows.
    """

    arg_constraints = {"loc": constraints.real, "log_scale": constraints.real}
    support = _EightBit()

    def __init__(self, loc: Tensor, log_scale: Tensor, validate_args: bool | None = None):
        self.loc, self.log_scale = torch.broadcast_tensors(loc, log_scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def _log_prob(self, value: Tensor) -> Tensor:
        inverse_scale = (-self.log_scale).exp()
        middle, half_bin = (value - self.loc) * inverse_scale, 0.5 / MAX_PIXEL_VALUE * inverse_scale
        below_upper, above_lower = logsigmoid(middle + half_bin), logsigmoid(half_bin - middle)
        within = torch.log(-torch.expm1(-2 * half_bin))
        inside = below_upper + above_lower + within
        outermost = torch.where(value < 0.5 / MAX_PIXEL_VALUE, below_upper, above_lower)
        return torch.where((value - 0.5).abs() > 0.5 - 0.5 / MAX_PIXEL_VALUE, outermost, inside)

    @property
    def mode(self) -> Tensor:
        """The likeliest of three: the level nearest to `loc`, and the two that hold the tails."""
        nearest = (self.loc * MAX_PIXEL_VALUE).round().clamp(1, MAX_PIXEL_VALUE - 1) / MAX_PIXEL_VALUE
        levels = torch.stack([nearest, torch.zeros_like(nearest), torch.ones_like(nearest)])
        return levels.gather(0, self._log_prob(levels).argmax(0, keepdim=True))[0]

    def entropy(self) -> Tensor:
        """The sum over the levels, one at a time: memory for one."""
        total = torch.zeros_like(self.loc)
        for level in range(MAX_PIXEL_VALUE + 1):
            log_p = self._log_prob(self.loc.new_tensor(level / MAX_PIXEL_VALUE))
            total = total - log_p.exp() * log_p
        return total

    @property
    def mean(self) -> Tensor:
        """E[X] = sum over the levels n = 1, ..., 255 of P(X >= n / 255) / 255."""
        return self._sum_over_levels(lambda level: 1 / MAX_PIXEL_VALUE)

    @property
    def variance(self) -> Tensor:
        """E[X^2] - E[X]^2, with E[X^2] = sum over the levels of (2 n - 1) P(X >= n / 255) / 255^2."""
        second_moment = self._sum_over_levels(lambda level: (2 * level - 1) / MAX_PIXEL_VALUE**2)
        return (second_moment - self.mean.square()).clamp(min=0)

    def _sum_over_levels(self, weight: Callable[[int], float]) -> Tensor:
        """The sum over n = 1, ..., 255 of weight(n) P(X >= n / 255), one level at a time: memory for one."""
        inverse_scale = (-self.log_scale).exp()
        total = torch.zeros_like(self.loc)
        for level in range(1, MAX_PIXEL_VALUE + 1):
            reached = torch.sigmoid((self.loc - (level - 0.5) / MAX_PIXEL_VALUE) * inverse_scale)
            total = total.add(reached, alpha=weight(level))
        return total

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A logistic variable, rounded to the nearest level and clipped to [0, 1]."""
        loc = self.loc.expand(self._extended_shape(sample_shape))
        x = loc + self.log_scale.exp() * torch.rand_like(loc).logit()
        return (x * MAX_PIXEL_VALUE).round().clamp(0, MAX_PIXEL_VALUE) / MAX_PIXEL_VALUE


class PaletteCategorical(PixelDistribution):
    """One of a palette's colours at each position; with a small probability, any 8-bit colour at all.

    Without that second part a colour that training never saw would have probability 0. With it such a colour has
    `STRAY` / 256^C, and the whole still sums to one over all 256^C colours.

    Args:
        logits: of the palette's colours, [..., H, W, N].
        codes: the palette: each colour as one integer (see `colour_codes`), ascending, [N].
        num_channels: C.
    """

    STRAY = 1e-5

    arg_constraints = {"logits": constraints.independent(constraints.real, 3)}
    support = constraints.independent(_EightBit(), 3)

    def __init__(self, logits: Tensor, codes: Tensor, num_channels: int, validate_args: bool | None = None):
        self.logits, self.codes, self.num_channels = logits, codes, num_channels
        *batch_shape, height, width, _ = logits.shape
        super().__init__(torch.Size(batch_shape), torch.Size((num_channels, height, width)), validate_args)

    def _log_prob(self, value: Tensor) -> Tensor:
        place, known = self._find(value)
        place, logits = torch.broadcast_tensors(place.unsqueeze(-1), self.logits)
        log_p = -cross_entropy(logits.flatten(0, -2), place[..., 0].flatten(), reduction="none").view(place.shape[:-1])
        return self._with_stray(log_p, known).sum((-2, -1))

    def log_prob_of_all(self, value: Tensor) -> Tensor:
        """`log_prob` of all images [B, C, H, W] under all of a batch_shape [G, 1]: [G, B], in the memory of few."""
        log_p = self.logits.log_softmax(-1).flatten(1, -2)  # [G, H W, N]
        place, known = (found.flatten(1) for found in self._find(value))  # [B, H W]
        positions, at_once = torch.arange(place.shape[1], device=place.device), max(1, 2**22 // log_p[..., 0].numel())
        pairs = zip(place.split(at_once), known.split(at_once), strict=True)
        return torch.cat([self._with_stray(log_p[:, positions, some], which).sum(-1) for some, which in pairs], dim=1)

    def _find(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The place of each pixel's colour in the palette, and whether it is there: [..., H, W]."""
        codes = colour_codes(value.movedim(-3, -1))
        place = torch.searchsorted(self.codes, codes).clamp(max=len(self.codes) - 1)
        return place, self.codes[place] == codes

    def _with_stray(self, log_p: Tensor, known: Tensor) -> Tensor:
        """The log-probabilities of pixels, from those of their colours among the palette's."""
        drawn = torch.where(known, log_p + log(1 - self.STRAY), -torch.inf)
        return torch.logaddexp(drawn, torch.full_like(drawn, self._log_stray))

    @property
    def _log_stray(self) -> float:
        """The log-probability of a colour that the palette lacks."""
        return log(self.STRAY) - self.num_channels * log(MAX_PIXEL_VALUE + 1)

    def entropy(self) -> Tensor:
        log_p = self.logits.log_softmax(-1) + log(1 - self.STRAY)
        log_p = torch.logaddexp(log_p, torch.full_like(log_p, self._log_stray))
        unknown = self.STRAY - len(self.codes) * exp(self._log_stray)  # the share of all other colours together
        return -((log_p.exp() * log_p).sum(-1) + unknown * self._log_stray).sum((-2, -1))

    @property
    def mode(self) -> Tensor:
        return self._images(self.codes[self.logits.argmax(-1)])

    @property
    def mean(self) -> Tensor:
        return self._moment(1)

    @property
    def variance(self) -> Tensor:
        return (self._moment(2) - self.mean.square()).clamp(min=0)

    def _moment(self, power: int) -> Tensor:
        """E[X^power] of each channel: [..., C, H, W]."""
        colours = colours_of(self.codes, self.num_channels, self.logits.dtype) ** power  # [N, C]
        stray = torch.linspace(0, 1, MAX_PIXEL_VALUE + 1, dtype=torch.float64).pow(power).mean().item()
        return ((1 - self.STRAY) * (self.logits.softmax(-1) @ colours) + self.STRAY * stray).movedim(-1, -3)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        codes = self.codes[Categorical(logits=self.logits, validate_args=False).sample(sample_shape)]  # [..., H, W]
        any_colour = torch.randint_like(codes, (MAX_PIXEL_VALUE + 1) ** self.num_channels)
        is_stray = torch.rand(codes.shape, device=codes.device) < self.STRAY
        return self._images(torch.where(is_stray, any_colour, codes))

    def _images(self, codes: Tensor) -> Tensor:
        """[..., H, W] -> [..., C, H, W]."""
        return colours_of(codes, self.num_channels, self.logits.dtype).movedim(-1, -3)


def colour_codes(colours: Tensor) -> Tensor:
    """Colours [..., C] in [0, 1] as integers in the order of their 8-bit values: [...]."""
    values = (colours * MAX_PIXEL_VALUE).round().long()
    return sum(value << 8 * place for place, value in enumerate(reversed(values.unbind(-1))))


def colours_of(codes: Tensor, num_channels: int, dtype: torch.dtype) -> Tensor:
    """The inverse of `colour_codes`: [...] -> [..., C] in [0, 1]."""
    shifts = [8 * place for place in reversed(range(num_channels))]
    return torch.stack([(codes >> shift) & MAX_PIXEL_VALUE for shift in shifts], dim=-1).to(dtype) / MAX_PIXEL_VALUE
