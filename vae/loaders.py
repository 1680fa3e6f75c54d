"""What the model needs of any DataLoader: its batches as blocks of steps, and how many steps and images it has."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import DistributedSampler, SequentialSampler

from vae.likelihoods import at_least_float32
from vae.metrics import ImageTable
from vae.model import VAE


class Block(NamedTuple):
    """Images of one or more optimiser steps.

    images: [B, C, H, W], values in [0, 1].
    labels: [B], or None if they have none.
    index: each one's number in its split, [B].
    sizes: how many images each step has; they sum to B.
    """

    images: Tensor
    labels: Tensor | None
    index: Tensor
    sizes: tuple[int, ...]

    def steps(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The images and labels of each step."""
        labels = [None] * len(self.sizes) if self.labels is None else self.labels.split(self.sizes)
        return zip(self.images.split(self.sizes), labels, strict=True)


def as_block(batch: Any, vae: VAE, seen: ImageTable) -> Block:
    """The batch of a data module of this project, its four parts; that of any DataLoader as a block of one step.

    Args:
        batch: from a DataLoader images, or (images, ...); a second part is labels if it is integers [B].
        vae: the model, for which a DataLoader's images are checked, their values in the first batch alone.
        seen: a row for each image that came before in this pass, after which those of a DataLoader are numbered.

    Raises:
        ValueError: it is something else, or the images are not as the model needs them.
    """
    match batch:
        case [Tensor() as images, labels, Tensor() as index, tuple() as sizes]:
            return Block(images, labels, index, sizes)
        case (Tensor() as images) | [Tensor() as images]:
            labels = None
        case [Tensor() as images, labels, *_]:
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
    first = seen.num_images
    vae.check_images(images, values=first == 0)
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.shape != images.shape[:1]:
        labels = None
    return Block(images, labels, torch.arange(first, first + len(images), device=images.device), (len(images),))


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
