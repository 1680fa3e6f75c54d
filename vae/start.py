"""The start of a command: what has to be settled before torch is imported."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def starting() -> Iterator[None]:
    """The imports of a command, which take seconds, and the settings of the processor that its speed depends on.

    Threads that wait for each other at the end of an operation give up the processor after some microseconds: two
    trainings at once would spend their time waiting for threads that are not running. What the environment says of it
    (GOMP_SPINCOUNT, OMP_WAIT_POLICY) stands.

    Numbers too small for a normal float32 count as 0: Adam's averages of gradients that are always 0 become such
    numbers, on which a processor spends a hundred times as long.

    Raises:
        SystemExit: with the status of an interrupt, for Ctrl-C during the imports.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        import torch

        torch.set_flush_denormal(True)  # threads have it that start from now on
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
