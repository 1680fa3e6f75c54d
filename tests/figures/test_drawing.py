"""Drawing helpers pixel by pixel; every figure as a file."""

import io
from inspect import signature

import numpy as np
import pytest
import torch
from mosaics import HISTORY, SHAPES, grid_of
from PIL import Image

from vae import VAE
from vae.figures import FIGURES, NotApplicable, film_frame, render
from vae.figures.drawing import upscale

MATERIAL = {"vae", "images", "labels", "classes", "dataset", "history", "histories", "frames"}


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_enlarged_by_whole_numbers(shape):
    images = torch.rand(2, *shape)
    large = upscale(images, 48)
    factor = large.shape[-1] // shape[-1]
    assert large.shape[-2:] == (factor * shape[1], factor * shape[2])
    assert min(large.shape[-2:]) >= 48
    assert torch.equal(large, torch.kron(images, torch.ones(1, 1, factor, factor)))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_shows_a_mosaic_pixel_by_pixel_below_its_title(shape):
    vae = VAE(shape)
    kind, content = render("samples", {"vae": lambda: vae, "num_samples": lambda: 6, "grid_width": lambda: 3})
    assert kind == "png"
    image = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    grid = grid_of(FIGURES["samples"](vae, num_samples=6, grid_width=3))
    left, below = (image.shape[1] - grid.shape[1]) // 2, image.shape[0] - 20
    np.testing.assert_array_equal(image[below - grid.shape[0] : below, left : left + grid.shape[1]], grid)
    title = image[: below - grid.shape[0]]
    assert (title != 255).any()
    assert (image[0] == 255).all()  # nothing is cut off at the edges
    assert (image[:, 0] == 255).all()


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("learned_manifold", [3], "learned_manifold needs a latent space of 1 or 2 dimensions; this model has 3"),
        ("reconstruction_by_class", [2, torch.rand(2, 1, 8, 8), None, None], "needs labels; these images have none"),
        ("interpolations", [2, torch.rand(1, 1, 8, 8)], "interpolations needs at least two images"),
        ("latent_scatter", [3, torch.rand(3, 1, 8, 8), None, None], "latent_scatter needs at least four images"),
        ("learning_curve", [{}], "learning_curve needs the curves that TensorBoard keeps"),
        ("learning_curves", [{}], "learning_curves needs the curves that TensorBoard keeps"),
        ("training_film", [{}], "training_film needs the frames that training keeps"),
    ],
)
def test_what_makes_no_sense_says_why(name, arguments, reason):
    arguments = [VAE((1, 8, 8), latent_dim=part) if isinstance(part, int) else part for part in arguments]
    with pytest.raises(NotApplicable, match=reason):
        FIGURES[name](*arguments)


def material(latent_dim):
    vae, images = VAE((3, 8, 8), latent_dim=latent_dim), torch.rand(40, 3, 8, 8)
    parts = {
        "vae": vae,
        "images": images,
        "labels": torch.arange(40) % 4,
        "classes": "abcd",
        "dataset": "letters",
        "history": HISTORY,
        "histories": {"one": HISTORY},
        "frames": {1: film_frame(vae), 2: film_frame(vae)},
        "num_samples": 9,
        "grid_width": 3,
        "grid": "quantiles",
        "extent": 3.0,
        "grid_size": 4,
        "tsne_points": 40,
    }
    return {name: lambda value=value: value for name, value in parts.items()}


@pytest.mark.parametrize(
    ("name", "latent_dim"),
    [
        (name, latent_dim)
        for name in FIGURES
        for latent_dim in (1, 2, 4)
        if (name, latent_dim) != ("learned_manifold", 4)
    ],
)
def test_a_figure_is_the_same_file_each_time_and_nothing_is_cut_off(name, latent_dim):
    torch.manual_seed(0)
    parts = material(latent_dim)
    kind, content = render(name, parts)
    torch.manual_seed(1)
    assert render(name, parts) == (kind, content)
    if kind == "html":
        return
    image = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    for edge in (image[0], image[-1], image[:, 0], image[:, -1]):
        assert (edge >= 250).all()


def test_every_figure_needs_only_what_there_is():
    for name in FIGURES:
        parts = signature(FIGURES[name]).parameters.values()
        assert {part.name for part in parts if part.kind == part.POSITIONAL_OR_KEYWORD} <= MATERIAL
