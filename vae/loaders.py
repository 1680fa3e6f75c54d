"""What the model needs of any DataLoader: its batches as blocks of steps, and how many steps and images it has."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import DistributedSampler, SequentialSampler

from vae.likelihoods import at_least_float32


class Block(NamedTuple):
    """What steps need of a batch: images [B, C, H, W], each one's number [B], and the sizes of the steps in it."""

    images: Tensor
    index: Tensor
    sizes: tuple[int, ...]


def as_block(batch: Any, first: int) -> Any:
    """A batch of the data modules as it is; images, or (images, ...), of any DataLoader as a block of one step.

    Args:
        first: the number of its first image, where they have none.

    Raises:
        ValueError: it is something else.
    """
    if hasattr(batch, "sizes"):
        return batch
    match batch:
        case (Tensor() as images) | [Tensor() as images, *_]:
            pass
        case _:
            parts = [str(key) for key in batch] if isinstance(batch, Mapping) else []
            if isinstance(batch, tuple | list):
                parts = [type(part).__name__ for part in batch[:3]]
            of = f" of {', '.join(parts)}" if parts else ""
            raise ValueError(
                "batch: expected a tensor of images [B, C, H, W], or a tuple or list that begins with one, got "
                f"{type(batch).__name__}{of}; give the DataLoader a Dataset or a collate_fn that returns those"
            )
    if images.is_floating_point():  # the Trainer has cast them to the precision of the weights, such as bf16-true
        images = at_least_float32(images)
    return Block(images, torch.arange(first, first + len(images), device=images.device), (len(images),))


def count_steps(loader: Any, num_batches: float) -> float:
    """The optimiser steps in so many batches of a training loader: those of the data modules are blocks of steps."""
    sampler: Any = getattr(loader, "batch_sampler", None)
    return sampler.num_steps(num_batches) if hasattr(sampler, "num_steps") else num_batches


def count_images(loader: Any, num_batches: float) -> int:
    """The number of images that a training loader goes through.

    Args:
        num_batches: those of an epoch.

    Raises:
        MisconfigurationException: the loader does not know it.
    """
    try:
        sampler, num_images = loader.batch_sampler.sampler, len(loader.dataset)
        drawn_from = sampler.dataset if isinstance(sampler, DistributedSampler) else sampler
        is_cut = isinstance(sampler, SequentialSampler) and num_batches < len(loader)
        if hasattr(sampler, "num_steps") or len(drawn_from) == num_images and not is_cut:
            return num_images
    except (AttributeError, TypeError):
        pass
    raise MisconfigurationException(
        "weight_prior: needs the number of training images, which this loader does not know: it has no length, or a "
        "sampler that leaves some out or repeats some; for N of them, weight_decay 1 / N is the same"
    )
