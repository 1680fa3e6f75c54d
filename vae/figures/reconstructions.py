"""Figures of images: reconstructions and samples."""

from collections.abc import Sequence
from typing import Annotated

import torch
from jsonargparse.typing import PositiveInt
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad

from vae.figures.drawing import (
    MAX_GRID_SIDE,
    MAX_ROWS,
    NotApplicable,
    cell_size,
    error_colours,
    image_figure,
    image_grid,
    label_cells,
    make_cells,
    to_cells,
)
from vae.likelihoods import MeanLikelihood
from vae.model import VAE


def reconstruction(vae: VAE, images: Annotated[Tensor, 40]) -> Figure:
    """Images beside their reconstructions at the posterior's mean: originals left, decoded right.

    Args:
        vae: the model.
        images: [N, C, H, W], values in [0, 1]; the first 40 are shown, five pairs in a row.
    """
    return image_figure(reconstruction_grid(vae, images[:40]), "Images (left of each pair) and reconstructions (right)")


def reconstruction_by_class(
    vae: VAE,
    images: Annotated[Tensor, 2_000],
    labels: Annotated[Tensor | None, 2_000],
    classes: Sequence[str] | None,
) -> Figure:
    """For each label, of the first 40, its first three images, their reconstructions, and the error of each pixel.

    Args:
        vae: the model.
        images: [N, C, H, W], values in [0, 1], among which those three are looked for.
        labels: [N], indices into `classes`, or None.
        classes: the labels' names, or None.

    Raises:
        NotApplicable: the images have no labels.
    """
    if labels is None or classes is None:
        raise NotApplicable("reconstruction_by_class needs labels; these images have none")
    found = labels.unique().tolist()
    shown = found[:MAX_ROWS]
    cells, names, size = [], [], cell_size(vae.image_shape, 9 * len(shown), 9)
    for label in shown:
        originals = images[labels == label][:3]
        decoded = vae.given(labels.new_tensor(label)).reconstruct(originals)
        error = error_colours((originals - decoded).abs().mean(1))
        triples = torch.stack([to_cells(each, size) for each in (originals, decoded, error)], dim=1).flatten(0, 1)
        cells.append(torch.cat([triples, torch.full_like(triples[:1], 255).expand(9 - len(triples), -1, -1, -1)]))
        names.append(classes[label])
    which = "class" if shown == found else f"class ({len(shown)} of {len(found)})"
    title = f"Reconstruction by {which}, and the error of each pixel"
    chart = image_figure(image_grid(torch.cat(cells), 9), title, left=160, right=110, top=80)
    (axes,) = chart.axes
    label_cells(axes, rows=names, columns=["original", "decoded", "error"] * 3)
    chart.colorbar(ScalarMappable(cmap="cividis"), cax=axes.inset_axes([1.03, 0, 0.025, 1]), label="absolute error")
    return chart


def samples(
    vae: VAE, *, num_samples: PositiveInt = 64, grid_width: PositiveInt = 8, sample_pixels: bool = False
) -> Figure:
    """Decoded draws z from p(z), the same each time: the image of p(x|z), or a sample x from it.

    Of a conditional model, p(x|z, y), each row has a label y.

    Args:
        vae: the model.
        num_samples: How many samples there are.
        grid_width: How many of them stand in a row.
        sample_pixels: Show samples from p(x|z) in place of its mean (of a categorical one, its mode).
    """
    mean = "mean" if isinstance(vae.likelihood, MeanLikelihood) else "mode"
    shown = "with one sample from p(x|z)" if sample_pixels else f"shown as the {mean} of p(x|z)"
    drawn = "draws of z, a label in each row" if vae.needs_labels else "draws of z from the prior"
    title = f"{num_samples} {drawn}, each {shown}"
    return image_figure(sample_grid(vae, num_samples, grid_width, sample_pixels=sample_pixels), title)


@torch.no_grad()
def reconstruction_grid(
    vae: VAE, images: Tensor, at_least: int = 72, spacing: int = 12, at_most: int = MAX_GRID_SIDE
) -> Tensor:
    """Pairs of original and reconstruction, five in a row, with so many pixels between pairs: uint8 [3, H, W]."""
    size = cell_size(vae.image_shape, 2 * len(images), min(10, 2 * len(images)), at_least, spacing, at_most)
    originals, decoded = to_cells(images, size), make_cells(vae, VAE.reconstruct, images, size)
    pairs = torch.cat([pad(originals, (0, spacing // 6), value=255), decoded], dim=-1)
    return image_grid(pairs, 5, spacing)


@torch.no_grad()
def sample_grid(
    vae: VAE,
    num_samples: int = 64,
    grid_width: int = 8,
    at_least: int = 72,
    spacing: int = 2,
    at_most: int = MAX_GRID_SIDE,
    sample_pixels: bool = False,
) -> Tensor:
    """Decoded draws from p(z), the same each time: uint8 [3, H, W]. Of a conditional model each row has a label."""
    z = torch.randn(num_samples, vae.latent_dim, generator=torch.Generator().manual_seed(0))
    size = cell_size(vae.image_shape, num_samples, grid_width, at_least, spacing, at_most)
    make = (lambda model, z: model.decode(z).sample().clamp(0, 1)) if sample_pixels else VAE.generate
    if vae.needs_labels:
        vae = vae.given(torch.arange(num_samples) // grid_width % vae.num_classes)
    with torch.random.fork_rng():  # torch's distributions draw from the global generator
        torch.manual_seed(0)
        cells = make_cells(vae, make, z, size)
    return image_grid(cells, grid_width, spacing)
