"""Seeds of random streams, derived from integers."""

from numpy.random import SeedSequence

SHUFFLING, BINARIZATION = 1, 2  # the streams: the first integer keeps them independent of each other


def derive_seed(*integers: int) -> int:
    """A 64-bit seed that is a function of non-negative integers, by NumPy's `SeedSequence`: not by `hash`."""
    return int(SeedSequence(integers).generate_state(1, "uint64")[0])
