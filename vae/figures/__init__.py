"""One pure function a figure: model, tensors and histories in, figure out. Nothing is read or written here.

The arguments before the `*` of a figure are what it shows; those after it are its options, which `visualizations.py`
offers on the command line. A figure that does not apply to a model raises `NotApplicable`.
"""

from vae.figures import explorer, latent_space, reconstructions, training  # noqa: F401  each enters its figures into FIGURES
from vae.figures.latent_space import encode_images
from vae.figures.reconstructions import reconstruction_grid, sample_grid
from vae.figures.registry import FIGURES, NotApplicable, figure, render
from vae.figures.training import film_frame

__all__ = [
    "FIGURES",
    "NotApplicable",
    "encode_images",
    "figure",
    "film_frame",
    "reconstruction_grid",
    "render",
    "sample_grid",
]
