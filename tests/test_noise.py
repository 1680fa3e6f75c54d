"""Noise that is a function of integers: fixed for all time, different for different integers, and normal."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from vae.evaluation import evaluation_noise
from vae.noise import counter_normal, derive_seed, splitmix64

GAMMA = 0x9E3779B97F4A7C15


def test_a_derived_seed_never_changes():
    assert [derive_seed(1), derive_seed(1, 0), derive_seed(0, 1)] == [1189033389, 307626447, 3720552013]


def test_derived_seeds_fit_a_generator_and_differ():
    seeds = [derive_seed(*integers) for integers in product(range(12), repeat=3)] + [derive_seed(0), derive_seed(0, 0)]
    assert 0 <= min(seeds) <= max(seeds) < 2**32
    assert len(set(seeds)) == len(seeds)
    with pytest.raises(ValueError):
        derive_seed(-1)


def test_splitmix64_gives_its_published_numbers():
    """The first outputs for the seed 1234567, as published with the reference implementation."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert splitmix64(1234567, torch.arange(4)).numpy().view(np.uint64).tolist() == published


def test_splitmix64_agrees_with_unsigned_arithmetic():
    """Seeds of all 64 bits and large numbers, in Python's integers modulo 2^64."""

    def reference(seed, number):
        state = (seed + (number + 1) * GAMMA) % 2**64
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            state = (state ^ state >> shift) * factor % 2**64
        return state ^ state >> 31

    seeds = torch.randint(-(2**63), 2**63 - 1, (300,))
    numbers = torch.randint(2**40, (300,))
    expected = map(reference, seeds.tolist(), numbers.tolist())
    assert splitmix64(seeds, numbers).numpy().view(np.uint64).tolist() == [*expected]


def test_counter_normal_is_box_and_mullers_transform_of_its_bits():
    noise = counter_normal(7, torch.tensor([5]), torch.tensor([11]), 6)[0, 0].numpy()
    stream = splitmix64(7, torch.tensor(5))
    bits = splitmix64(stream, 11 * 3 + torch.arange(3)).numpy().view(np.uint64)
    radius = np.sqrt(-2 * np.log(((bits >> np.uint64(32)) + 0.5) / 2**32))
    angle = 2 * np.pi * (bits & np.uint64(2**32 - 1)) / 2**32
    np.testing.assert_allclose(noise[:3], radius * np.cos(angle), atol=2e-6)
    np.testing.assert_allclose(noise[3:], radius * np.sin(angle), atol=2e-6)


@pytest.mark.parametrize("dim", [1, 5, 20])
def test_counter_normal_is_a_function_of_image_sample_and_dimension(dim):
    """Bit for bit, whatever it is drawn together with."""
    every = counter_normal(7, torch.arange(41), torch.arange(37), dim)
    assert every.shape == (37, 41, dim)
    assert every.dtype == torch.float32
    for _ in range(30):
        index = torch.randperm(41)[: int(torch.randint(1, 41, ()))]
        first, size = torch.randint(37, (2,)).tolist()
        samples = torch.arange(37)[first : first + size + 1]
        assert torch.equal(counter_normal(7, index, samples, dim), every[samples][:, index])
    assert len(every.unique()) > 0.999 * every.numel()
    assert not torch.equal(counter_normal(8, torch.arange(41), torch.arange(37), dim), every)


def test_counter_normal_is_standard_normal():
    """A million numbers: all of them, their tails, and each dimension of 20."""
    noise = counter_normal(1, torch.arange(1_000), torch.arange(50), 20).double()
    flat = noise.flatten().numpy()
    assert stats.kstest(flat, "norm", method="asymp").pvalue > 1e-3
    for power, (mean, variance) in {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96)}.items():
        assert abs((flat**power).mean() - mean) < 4 * (variance / len(flat)) ** 0.5
    for bound in (3, 4, 4.5):
        expected = 2 * stats.norm.sf(bound) * len(flat)
        assert 1e-3 < stats.poisson.cdf((abs(flat) > bound).sum(), expected) < 0.999
    columns = noise[:5].flatten(0, 1).T.numpy()
    assert min(stats.kstest(column, "norm", method="asymp").pvalue for column in columns) > 1e-4


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_counter_normal_has_no_correlations(kept):
    """Between samples, images and dimensions: of the numbers, and of their squares."""
    noise = counter_normal(1, torch.arange(100), torch.arange(100), 100).movedim(kept, 0).flatten(1)
    for values in (noise, noise.square()):
        correlations = torch.corrcoef(values)[*torch.triu_indices(100, 100, 1)] * 10_000**0.5
        assert correlations.abs().max() < 5
        assert correlations.std().item() == pytest.approx(1, abs=0.05)


def test_seeds_and_neighbouring_images_are_unrelated():
    image = torch.arange(1)
    series = torch.stack([counter_normal(seed, image + n, torch.arange(500), 20) for seed in range(4) for n in (0, 1)])
    correlations = torch.corrcoef(series.flatten(1)).fill_diagonal_(0) * 10_000**0.5
    assert correlations.abs().max() < 4.5


def test_evaluation_noise_is_a_function_of_image_and_sample(monkeypatch):
    """And no more of it is drawn than is asked for."""
    drawn = []

    def spy(seed, index, samples, dim):
        drawn.append(len(samples))
        return counter_normal(seed, index, samples, dim)

    monkeypatch.setattr("vae.evaluation.counter_normal", spy)
    every = torch.cat([*evaluation_noise(torch.arange(7), 300, 3)])
    for k in (1, 5, 128, 129, 257):
        drawn.clear()
        assert torch.equal(torch.cat([*evaluation_noise(torch.tensor([4, 2]), k, 3)]), every[:k, [4, 2]])
        assert sum(drawn) == k
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(torch.cat([*evaluation_noise(torch.arange(7), 300, 3)]), every)
    finally:
        torch.set_default_dtype(torch.float32)
