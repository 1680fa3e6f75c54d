"""Figures of images: reconstructions and samples."""

from collections.abc import Sequence

import torch
from jsonargparse.typing import PositiveInt
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

from vae.figures.drawing import decode_images, error_colours, image_figure, image_grid, label_cells, to_rgb
from vae.figures.registry import NotApplicable, figure
from vae.model import VAE


@figure
def reconstruction(vae: VAE, images: Tensor) -> Figure:
    """Images beside their reconstructions at the posterior's mean: originals left, decoded right.

    Args:
        vae: the model.
        images: [N, C, H, W], values in [0, 1]; the first 40 are shown, five pairs in a row.
    """
    return image_figure(reconstruction_grid(vae, images[:40]), "Images (left of each pair) and reconstructions (right)")


@figure
def reconstruction_by_class(vae: VAE, images: Tensor, labels: Tensor | None, classes: Sequence[str] | None) -> Figure:
    """For each label its first three images, their reconstructions, and the error of each pixel.

    Args:
        vae: the model.
        images: [N, C, H, W], values in [0, 1].
        labels: [N], places in `classes`, or None.
        classes: the labels' names, or None.

    Raises:
        NotApplicable: the images have no labels.
    """
    if labels is None:
        raise NotApplicable("reconstruction_by_class needs labels; these images have none")
    cells, names = [], []
    for label in labels.unique().tolist():
        originals = images[labels == label][:3]
        decode_images = vae.reconstruct(originals)
        error = error_colours((originals - decode_images).abs().mean(1))
        triples = torch.stack([to_rgb(originals), to_rgb(decode_images), error], dim=1).flatten(0, 1)
        cells.append(torch.cat([triples, torch.ones_like(triples[:1]).expand(9 - len(triples), -1, -1, -1)]))
        names.append(classes[label])
    chart = image_figure(
        image_grid(torch.cat(cells), 9),
        "Reconstruction by class, and the error of each pixel",
        left=110,
        right=110,
        top=80,
    )
    (axes,) = chart.axes
    label_cells(axes, rows=names, columns=["original", "decode_images", "error"] * 3)
    chart.colorbar(ScalarMappable(cmap="cividis"), cax=axes.inset_axes([1.03, 0, 0.025, 1]), label="absolute error")
    return chart


@figure
def samples(vae: VAE, *, num_samples: PositiveInt = 64, grid_width: PositiveInt = 8) -> Figure:
    """Images for draws from p(z), the same draws each time.

    Args:
        vae: the model.
        num_samples: How many samples there are.
        grid_width: How many of them stand in a row.
    """
    return image_figure(
        sample_grid(vae, num_samples, grid_width), f"{num_samples} samples: decoded draws from the prior"
    )


@torch.no_grad()
def reconstruction_grid(vae: VAE, images: Tensor, at_least: int = 72) -> Tensor:
    """Pairs of original and reconstruction, five in a row: uint8 [3, H, W]."""
    pairs = torch.stack([to_rgb(images, at_least), to_rgb(vae.reconstruct(images), at_least)], dim=1)
    pairs = torch.stack([make_grid(pair, nrow=2, padding=2, pad_value=1) for pair in pairs])
    return image_grid(pairs, 5, padding=8)


@torch.no_grad()
def sample_grid(vae: VAE, num_samples: int = 64, grid_width: int = 8, at_least: int = 72) -> Tensor:
    """Decoded draws from p(z), the same each time: uint8 [3, H, W]."""
    z = torch.randn(num_samples, vae.latent_dim, generator=torch.Generator().manual_seed(0))
    return image_grid(decode_images(vae, z, at_least), grid_width)
