"""Every p(x|z): its log-density against an independent oracle, its total, its gradients, its extremes."""

import weakref
from itertools import product

import numpy as np
import pytest
import torch
from helpers import GREY, distribution, parameters_of
from scipy import integrate, stats
from scipy.special import expit
from torch.utils._python_dispatch import TorchDispatchMode

from vae.distributions import DiscretizedLogistic, PaletteCategorical, PixelBernoulli
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
def test_each_is_a_distribution_like_torchs_own(name):
    numbers = [n.float() for n in parameters_of(name, 5, 1, 2, 3)]
    p_x = distribution(name, *numbers, image_shape=(1, 2, 3))
    assert "torch.Size([5, " in repr(p_x)
    x = p_x.sample((10_000,))
    assert p_x.support.check(x).all()
    log_p = p_x.log_prob(x)
    assert (p_x.log_prob(p_x.mode) >= log_p.max(0).values - 1e-5).all()
    assert ((p_x.entropy() + log_p.mean(0)).abs() < 5 * log_p.std(0) / 100).all()
    torch.testing.assert_close(p_x.stddev.square(), p_x.variance)
    wide = p_x.expand((4, 5))
    assert (wide.batch_shape, wide.event_shape, wide.sample((7,)).shape) == ((4, 5), (1, 2, 3), (7, 4, 5, 1, 2, 3))
    torch.testing.assert_close(wide.log_prob(x[:4]), log_p[:4])
    torch.testing.assert_close(wide.entropy(), p_x.entropy().expand(4, 5))
    if "gaussian" not in name:
        assert not p_x.support.check(x + 0.1 / 255).all()


@pytest.mark.parametrize("logit", [0.0, 80.0])
@pytest.mark.parametrize("name", ["bernoulli", "continuous_bernoulli", "discretized_logistic"])
def test_the_entropy_of_an_extreme_pixel_is_finite(name, logit):
    numbers = [torch.tensor([[[value]]], requires_grad=True) for value in (logit, -20.0)[: 1 + name.startswith("d")]]
    entropy = distribution(name, *numbers).entropy()
    entropy.backward()
    assert entropy.isfinite()
    assert all(number.grad.isfinite() for number in numbers)


def test_validation_says_what_is_no_pixel():
    with pytest.raises(ValueError, match=r"to be within the support \(EightBit\(\)\)"):
        DiscretizedLogistic(torch.zeros(3), torch.zeros(3)).log_prob(torch.tensor(0.5))
    with pytest.raises(ValueError, match="Expected parameter logits"):
        PixelBernoulli(torch.tensor(torch.nan))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_log_densities_can_be_transformed(name):
    numbers, directions = parameters_of(name, 4, 1, 2, 3), parameters_of(name, 4, 1, 2, 3)
    levels = pixel_levels(name)
    x = levels[torch.randint(len(levels), (4, 1, 2, 3))].double()

    def log_prob(x, *numbers):
        return distribution(name, *numbers, image_shape=(1, 2, 3)).log_prob(x).sum()

    places = tuple(range(1, 1 + len(numbers)))
    gradients = torch.autograd.grad(log_prob(x, *[n.requires_grad_() for n in numbers]), numbers)
    for_each_image = torch.func.vmap(torch.func.grad(log_prob, argnums=places), randomness="same")(x, *numbers)
    torch.testing.assert_close(for_each_image, gradients)
    _, slope = torch.func.jvp(lambda *numbers: log_prob(x, *numbers), tuple(numbers), tuple(directions))
    expected = sum((gradient * direction).sum() for gradient, direction in zip(gradients, directions, strict=True))
    torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("logit", [-80.0, -0.21, -0.19, 0.0, 0.05, 3.0, 80.0])
def test_the_image_is_the_mean(name, logit):
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


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_densities_and_gradients_are_finite_whatever_a_network_gives(name):
    raw = (-1_000.0, 0.0, 1_000.0)
    for pixel, first, second in product((0.0, 17 / 255, 1.0), raw, raw):
        values = [torch.full_like(number, first, dtype=torch.float32) for number in parameters_of(name, 2, 1, 3, 3)]
        if len(values) == 2:
            values[1].fill_(second)
        elif name == "categorical":
            values[0][:, 1:] = second
        values = [value.requires_grad_(True) for value in values]
        log_p = distribution(name, *values, image_shape=(1, 3, 3)).log_prob(torch.full((2, 1, 3, 3), pixel))
        log_p.sum().backward()
        assert torch.isfinite(log_p).all(), (pixel, first, second)
        assert all(torch.isfinite(value.grad).all() for value in values), (pixel, first, second)


def cases(name):
    """Parameters of wide and of narrow distributions, [1, H, W] each; scale and logit where they are exotic."""
    if name == "categorical":
        return [torch.randn(4, 2, 3), torch.tensor([40.0, 0, 0, 0]).reshape(4, 1, 1).expand(4, 2, 3)]
    logits = torch.tensor([-300.0, -30, -3, -0.1, 0, 0.05, 0.6, 3, 300])
    return [(logits.reshape(1, 3, 3), torch.full((1, 3, 3), scale)) for scale in (-8.0, -3.0, 0.0, 3.0)]


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_samples_have_the_mean_and_the_variance(name):
    for numbers in cases(name):
        numbers = numbers if isinstance(numbers, tuple) else (numbers,)
        p_x = distribution(name, *numbers, image_shape=(1, *numbers[0].shape[1:]))
        x = p_x.sample((20_000,)).double()
        assert p_x.mean.shape == p_x.variance.shape == p_x.event_shape
        variance = p_x.variance.double()
        deviation = (x.mean(0) - p_x.mean).abs()
        assert (deviation <= 5 * (variance / 20_000).sqrt() + 1e-6).all()
        fourth = (x - x.mean(0)).pow(4).mean(0)
        error = ((fourth - x.var(0).square()).clamp(min=0) / 20_000).sqrt()
        assert ((x.var(0) - variance).abs() <= 6 * error + 1e-3 * variance + 1e-5).all()


@pytest.mark.parametrize("name", ["bernoulli", "continuous_bernoulli", "discretized_logistic", "categorical"])
def test_samples_have_the_frequencies_of_the_density(name):
    numbers = [n[0].float() for n in parameters_of(name, 1, 1, 1, 1)]
    p_x = distribution(name, *numbers)
    x = p_x.sample((40_000,)).flatten()
    if name == "continuous_bernoulli":
        grid = torch.linspace(0, 1, 2_001, dtype=torch.float64)
        logit = numbers[0].item()
        assert stats.kstest(x.numpy(), lambda t: np.expm1(logit * t) / np.expm1(logit)).pvalue > 1e-3
        assert 0 <= x.min() <= x.max() <= 1
        density = p_x.log_prob(grid.reshape(-1, 1, 1, 1)).exp()
        assert integrate.trapezoid(density, grid) == pytest.approx(1, abs=1e-5)
        return
    levels = torch.arange(256) / 255
    p = p_x.log_prob(levels.reshape(-1, 1, 1, 1)).exp().double()
    if name == "bernoulli":
        p[1:-1] = 0  # grey pixels have a density, but never occur
    counts = (x[:, None] == levels).sum(0)
    assert counts.sum() == 40_000  # nothing but 8-bit values
    common = p * 40_000 > 5
    assert ((counts - 40_000 * p)[common].abs() < 5 * (40_000 * p * (1 - p))[common].sqrt()).all()
    assert counts[~common].sum() < 5 * 40_000 * p[~common].sum() + 5


def test_rare_samples_are_colours_that_the_palette_lacks(monkeypatch):
    monkeypatch.setattr(PaletteCategorical, "STRAY", 0.5)
    palette = ((1, 2, 3), (4, 5, 6))
    p_x = distribution("categorical", torch.zeros(2, 1, 1), image_shape=(3, 1, 1), palette=palette)
    x = (p_x.sample((10_000,)).flatten(1) * 255).round()
    known = (x[:, None] == torch.tensor(palette)).all(-1).any(1)
    assert known.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert x[~known].mean(0).tolist() == pytest.approx([127.5] * 3, abs=6)
    torch.testing.assert_close(p_x.mean.flatten() * 255, 0.5 * torch.tensor([2.5, 3.5, 4.5]) + 0.5 * 127.5)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_samples_have_the_shape_of_torchs_own(name):
    numbers = [n.float() for n in parameters_of(name, 5, 1, 2, 3)]
    p_x = distribution(name, *numbers, image_shape=(1, 2, 3))
    assert p_x.sample().shape == (5, 1, 2, 3)
    assert p_x.sample((4, 7)).shape == (4, 7, 5, 1, 2, 3)
    assert p_x.log_prob(p_x.sample((4,))).shape == (4, 5)


@pytest.mark.parametrize("logit", [-80.0, -1.0, -0.41, -0.39, 0.0, 1e-3, 0.41, 5.0, 80.0])
def test_the_variance_of_a_continuous_bernoulli_meets_its_integral(logit):
    p_x = distribution("continuous_bernoulli", torch.tensor([[[logit]]]))
    x = np.linspace(0, 1, 400_001)
    weight = np.exp(logit * x - max(logit, 0))
    mean, square = (integrate.simpson(weight * x**n, x=x) / integrate.simpson(weight, x=x) for n in (1, 2))
    assert p_x.variance.item() == pytest.approx(square - mean**2, abs=3e-6)


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that are made and not yet freed."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **kwargs or {})
        if isinstance(out, torch.Tensor):
            self.add(out.nbytes)
            weakref.finalize(out, self.add, -out.nbytes)
        return out

    def add(self, size):
        self.live += size
        self.peak = max(self.peak, self.live)


def test_the_mean_of_a_discretized_logistic_is_exact_in_little_memory():
    loc, log_scale = torch.rand(10_000, dtype=torch.float64), torch.rand(10_000, dtype=torch.float64) * 10 - 10
    levels = torch.arange(256, dtype=torch.float64) / 255
    p = DiscretizedLogistic(loc[:, None], log_scale[:, None]).log_prob(levels).exp()
    p_x = DiscretizedLogistic(loc.float(), log_scale.float())
    with LiveMemory() as memory, torch.no_grad():
        mean = p_x.mean
    assert memory.peak <= 6 * mean.nbytes
    torch.testing.assert_close(mean.double(), p @ levels, atol=2e-6, rtol=0)
