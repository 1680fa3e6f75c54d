"""Seeds of random streams, derived from integers."""

from numpy.random import SeedSequence

SHUFFLING, BINARIZATION = 101, 102  # the first integer of each stream, unlike those of other streams


def derive_seed(*integers: int) -> int:
    """A 64-bit seed, a function of non-negative integers: NumPy's `SeedSequence`, which NumPy keeps as it is."""
    return int(SeedSequence(integers).generate_state(1, "uint64")[0])
