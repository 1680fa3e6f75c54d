"""Where images are kept: in memory, in a mapped file, or on the GPU."""

import tempfile
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def memory_limit() -> int:
    """The bytes of memory of this machine, or of the container (cgroup v2) if it has fewer."""
    total = psutil.virtual_memory().total
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else ""
    return min(total, int(limit)) if limit.isdigit() else total


def allocate_images(shape: Sequence[int], folder: Path) -> Tensor:
    """An empty uint8 tensor: in memory, or, if it would fill half of it, in an unnamed file in that folder."""
    if prod(shape) <= memory_limit() // 2:
        return torch.empty(shape, dtype=torch.uint8)
    with tempfile.TemporaryFile(dir=folder) as file:  # the mapping keeps it alive; it disappears with the process
        return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="w+", shape=tuple(shape)))


def fits_on_gpu(num_bytes: int, device: torch.device) -> bool:
    """Whether a tensor takes at most half of the free memory of a CUDA device; False for other devices."""
    return device.type == "cuda" and num_bytes <= torch.cuda.mem_get_info(device)[0] // 2
