"""Seeds of random streams, derived from integers.

`vae/noise.py` has its own: neither package imports the other, and each draws what it has always drawn.
"""

from functools import lru_cache

from numpy.random import SeedSequence

# The first integer of each stream, unlike those of other streams.
SHUFFLING, BINARIZATION, FIXED_BINARIZATION, PART_OF_SPLIT = 101, 102, 103, 104


@lru_cache  # each step of an epoch asks for the seed of the epoch
def derive_seed(*integers: int) -> int:
    """A 64-bit seed, a function of non-negative integers: NumPy's `SeedSequence`, which NumPy keeps as it is."""
    return int(SeedSequence(integers).generate_state(1, "uint64")[0])
