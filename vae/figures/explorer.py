"""The latent space to explore with the mouse: a page in which the model itself runs."""

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from vae.explorer import MAX_IMAGES, NotExplorable, explorer_page
from vae.figures.drawing import NotApplicable
from vae.model import VAE


def explorer(
    vae: VAE,
    images: Annotated[Tensor, MAX_IMAGES],
    labels: Annotated[Tensor | None, MAX_IMAGES],
    classes: Sequence[str] | None,
    dataset: str,
    shown: str,
) -> str:
    """One HTML file to open in a browser: decode with the mouse, encode what one draws, see the bound computed.

    Args:
        vae: the model.
        images: [N, C, H, W], values in [0, 1].
        labels: [N], places in `classes`, or None.
        classes: the labels' names, or None.
        dataset: the data set's name.
        shown: what the images are, such as "test images".

    Raises:
        NotApplicable: the page cannot hold the model.
    """
    try:
        return explorer_page(vae, images, labels, classes, dataset, shown)
    except NotExplorable as reason:
        raise NotApplicable(str(reason)) from reason
