"""The noise of the paper's g(eps, x) as a function of integers, not of what was drawn before.

In training a generator for each step; in evaluation, where an image must have its noise whatever it is batched with, a
counter in place of a state: each number is a hash of what it belongs to.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from math import pi

import numpy as np
import torch
from torch import Tensor

TRAINING_NOISE, MODEL_DRAWS = 2, 3  # streams of `derive_seed`; the data modules have others
LOW = 2**32 - 1  # the lower half of 64 bits


@lru_cache  # each step of an epoch asks for the seed of the epoch
def derive_seed(*integers: int) -> int:
    """A seed in [0, 2^32) that is a function of these integers, on every platform.

    `numpy.random.SeedSequence` mixes them; numpy guarantees its output. Neighbouring integers give unrelated seeds. The
    number of integers is mixed in as well, since SeedSequence pads with zeros: (1,) and (1, 0) differ. torch's CPU
    generator uses 32 bits of a seed, so there are no more.

    Args:
        integers: each in [0, 2^32).
    """
    return int(np.random.SeedSequence((len(integers), *integers)).generate_state(1)[0])


def splitmix64(seed: int | Tensor, number: Tensor) -> Tensor:
    """Output `number` (0, 1, ...) of SplitMix64 started at `seed` (Steele et al., OOPSLA 2014): 64 bits, as int64.

    Exact on every device: products of int64 wrap, and what its shifts copy from the sign is masked out.
    """
    state = seed + (number + 1) * -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 - 2^64; so are the next two
    state = (state ^ (state >> 30 & 2**34 - 1)) * -0x40A7B892E31B1A47
    state = (state ^ (state >> 27 & 2**37 - 1)) * -0x6B2FB644ECCEEE15
    return state ^ (state >> 31 & 2**33 - 1)


def counter_normal(seed: int, index: Tensor, samples: Tensor, dim: int) -> Tensor:
    """Independent draws from N(0, 1), each a function of (seed, image, sample, dimension): float32 [K, B, dim].

    Each image has a stream of SplitMix64, whose 64 bits become two numbers by Box and Muller. Those bits are the same
    on every device; logarithm and cosine may differ in their last bits. No number is beyond 6.77.

    Args:
        seed: of all of them.
        index: the numbers of the images, [B].
        samples: the numbers of the samples, [K].
        dim: how many numbers a sample has.
    """
    pairs = torch.arange(-(-dim // 2), device=index.device)
    streams = splitmix64(seed, index).unsqueeze(1)  # [B, 1]
    bits = splitmix64(streams, samples.view(-1, 1, 1) * len(pairs) + pairs)  # [K, B, dim / 2]
    uniform = (bits >> 32 & LOW).float().add_(0.5).mul_(2**-32)  # never 0
    radius = uniform.log_().mul_(-2).sqrt_()
    angle = (bits & LOW).float().mul_(2 * pi / 2**32)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], -1)[..., :dim]


@contextmanager
def seeded_generators(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's own generators of the CPU and that device start at a seed, and are afterwards as they were before.

    For `Distribution.sample`, which takes no generator.
    """
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
        torch.manual_seed(seed)
        yield


class StepNoise:
    """The random numbers of a training step: a function of the integers that it belongs to.

    Args:
        shape: K samples of B images with Z latent variables.
        integers: seed, epoch and rank.
        step: its number in the epoch.

    Attributes:
        eps: the noise of the paper's g(eps, x), N(0, I): float32 [K, B, Z].
    """

    def __init__(self, shape: Sequence[int], integers: Sequence[int], step: int, device: torch.device):
        generator = torch.Generator(device).manual_seed(derive_seed(TRAINING_NOISE, *integers) + step)
        self.eps = torch.randn(*shape, generator=generator, device=device, dtype=torch.float32)
        self.draws_seed = derive_seed(MODEL_DRAWS, *integers) + step

    def generators(self) -> AbstractContextManager[None]:
        """Within it torch's own generators are this step's, for draws from a model; they start anew at each use."""
        return seeded_generators(self.draws_seed, self.eps.device)
