"""Reconstructions and samples, pixel by pixel."""

import numpy as np
import pytest
import torch
from mosaics import SHAPES, cell, grid_of, shown, texts
from scipy import stats

from vae import VAE
from vae.figures import FIGURES
from vae.likelihoods import LIKELIHOODS


@pytest.mark.parametrize("shape", SHAPES)
def test_reconstruction_has_originals_left_and_decoded_right(shape):
    vae, images = VAE(shape), torch.rand(12, *shape)
    factor = -(-72 // min(shape[1:]))
    height, width = factor * shape[1], factor * shape[2]
    grid = grid_of(FIGURES["reconstruction"](vae, images))
    with torch.no_grad():
        originals, decoded = shown(images, factor), shown(vae.reconstruct(images), factor)
    for i in (0, 4, 5, 11):  # five pairs a row; 2 pixels within a pair, and 12 between pairs
        top, left = i // 5 * (height + 12), i % 5 * (2 * width + 14)
        np.testing.assert_array_equal(grid[top : top + height, left : left + width], originals[i])
        np.testing.assert_array_equal(grid[top : top + height, left + width + 2 : left + 2 * width + 2], decoded[i])


def test_reconstruction_by_class_has_three_of_each_class_and_their_error():
    shape, labels = (1, 24, 24), torch.tensor([2, 0, 2, 0, 2, 2, 0, 0], dtype=torch.uint8)
    vae, images = VAE(shape), torch.rand(8, *shape)
    figure = FIGURES["reconstruction_by_class"](vae, images, labels, ("cats", "cows", "dogs and other animals"))
    grid = grid_of(figure)
    columns, rows = texts(figure.axes[0])
    assert rows == ["cats", "dogs and other …"]  # no cow is there
    assert columns == ["original", "decoded", "error"] * 3
    for row, places in enumerate([(1, 3, 6), (0, 2, 4)]):
        for number, place in enumerate(places):
            with torch.no_grad():
                decoded = vae.reconstruct(images[[place]])
            np.testing.assert_array_equal(cell(grid, row, 3 * number, shape, 3), shown(images[[place]], 3)[0])
            np.testing.assert_array_equal(cell(grid, row, 3 * number + 1, shape, 3), shown(decoded, 3)[0])
            brightness = cell(grid, row, 3 * number + 2, shape, 3).astype(float).sum(-1)
            error = np.kron((images[place] - decoded[0]).abs()[0].numpy(), np.ones((3, 3)))
            assert stats.spearmanr(brightness.ravel(), error.ravel()).statistic > 0.99


def test_a_class_of_few_images_leaves_its_cells_white():
    vae, images = VAE((1, 8, 8)), torch.rand(1, 1, 8, 8)
    grid = grid_of(FIGURES["reconstruction_by_class"](vae, images, torch.tensor([0]), ("one",)))
    assert (grid[:, 3 * 74 - 2 :] == 255).all()


def test_samples_are_decoded_from_the_prior():
    vae = VAE((1, 24, 24), latent_dim=1)
    with torch.no_grad():
        vae.likelihood.logits[0].weight.zero_()
        vae.likelihood.logits[0].bias.zero_()
    grid = grid_of(FIGURES["samples"](vae, num_samples=10, grid_width=4))
    assert grid.shape == (3 * 74 - 2, 4 * 74 - 2, 3)
    assert sorted(set(grid[: 2 * 74].flatten().tolist())) == [128, 255]  # grey images, white lines


SAMPLED = {  # what a sample of each likelihood is made of
    "bernoulli": {0.0, 1.0},
    "categorical": {0.0, 0.2, 1.0},
}


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_samples_are_of_pixels_where_that_is_asked_for(likelihood):
    vae = VAE((1, 8, 8), likelihood=likelihood, palette=((0,), (51,), (255,)))
    options = {"num_samples": 6, "grid_width": 3}
    of_means = FIGURES["samples"](vae, **options)
    state = torch.get_rng_state()
    of_pixels = FIGURES["samples"](vae, **options, sample_pixels=True)
    assert torch.equal(torch.get_rng_state(), state)
    mean = "mode" if likelihood == "categorical" else "mean"
    assert of_means.get_suptitle() == f"6 draws of z from the prior, each shown as the {mean} of p(x|z)"
    assert of_pixels.get_suptitle() == "6 draws of z from the prior, each with one sample from p(x|z)"
    z = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.manual_seed(0)
        expected = shown(vae.decode(z).sample().clamp(0, 1), 9)
    for i in range(6):
        np.testing.assert_array_equal(cell(grid_of(of_pixels), i // 3, i % 3, (1, 8, 8), 9), expected[i])
    assert (grid_of(of_pixels) != grid_of(of_means)).any()
    if likelihood in SAMPLED:
        assert {value / 255 for value in expected.flatten().tolist()} <= SAMPLED[likelihood]
