"""Seeds of random generators, derived from integers by documented functions, not by Python's `hash`."""

import numpy as np


def derive_seed(*integers: int) -> int:
    """A seed in [0, 2^32) that is a function of these integers, on every platform.

    `numpy.random.SeedSequence` mixes them; numpy guarantees its output. Neighbouring integers give unrelated seeds. The
    number of integers is mixed in as well, since SeedSequence pads with zeros: (1,) and (1, 0) differ. torch's CPU
    generator uses 32 bits of a seed, so there are no more.

    Args:
        integers: each in [0, 2^32).
    """
    return int(np.random.SeedSequence((len(integers), *integers)).generate_state(1)[0])


def derive_seeds(seed: int, index: np.ndarray) -> list[int]:
    """A seed in [0, 2^32) for each index, a function of (seed, index): fast for many indices.

    The upper half of the output number `index` of SplitMix64 started at `seed` (Steele et al., OOPSLA 2014).
    """
    state = np.uint64(seed) + (index.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)  # modulo 2^64
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((state ^ (state >> np.uint64(31))) >> np.uint64(32)).tolist()
