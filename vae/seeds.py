"""Seeds of random generators, derived from integers: one documented function in place of Python's `hash`."""

import numpy as np


def derive_seed(*integers: int) -> int:
    """A seed in [0, 2^32) that is a function of these integers, whatever the platform or version.

    `numpy.random.SeedSequence` mixes them; numpy guarantees its output. Neighbouring integers give unrelated seeds. The
    number of integers is mixed in as well, since SeedSequence pads with zeros: (1,) and (1, 0) differ. torch's CPU
    generator uses 32 bits of a seed, so there are no more.

    Args:
        integers: each in [0, 2^32).
    """
    return int(np.random.SeedSequence((len(integers), *integers)).generate_state(1)[0])
