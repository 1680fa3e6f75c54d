"""Reconstructions and samples, pixel by pixel."""

import numpy as np
import pytest
import torch
from mosaics import SHAPES, cell, grid_of, shown, texts
from scipy import stats

from vae import VAE
from vae.figures import FIGURES


@pytest.mark.parametrize("shape", SHAPES)
def test_reconstruction_has_originals_left_and_decoded_right(shape):
    vae, images = VAE(shape), torch.rand(12, *shape)
    factor = -(-72 // min(shape[1:]))
    height, width = factor * shape[1], factor * shape[2]
    grid = grid_of(FIGURES["reconstruction"](vae, images))
    with torch.no_grad():
        originals, decode_images = shown(images, factor), shown(vae.reconstruct(images), factor)
    for i in (0, 4, 5, 11):  # five pairs a row; each pair with a border of 2, and 8 between pairs
        top, left = 10 + i // 5 * (height + 12), 10 + i % 5 * (2 * width + 14)
        np.testing.assert_array_equal(grid[top : top + height, left : left + width], originals[i])
        np.testing.assert_array_equal(
            grid[top : top + height, left + width + 2 : left + 2 * width + 2], decode_images[i]
        )


def test_reconstruction_by_class_has_three_of_each_class_and_their_error():
    shape, labels = (1, 24, 24), torch.tensor([2, 0, 2, 0, 2, 2, 0, 0], dtype=torch.uint8)
    vae, images = VAE(shape), torch.rand(8, *shape)
    figure = FIGURES["reconstruction_by_class"](vae, images, labels, ("cats", "cows", "dogs and other animals"))
    grid = grid_of(figure)
    columns, rows = texts(figure.axes[0])
    assert rows == ["cats", "dogs and othe…"]  # no cow is there
    assert columns == ["original", "decode_images", "error"] * 3
    for row, places in enumerate([(1, 3, 6), (0, 2, 4)]):
        for number, place in enumerate(places):
            with torch.no_grad():
                decode_images = vae.reconstruct(images[[place]])
            np.testing.assert_array_equal(cell(grid, row, 3 * number, shape, 3), shown(images[[place]], 3)[0])
            np.testing.assert_array_equal(cell(grid, row, 3 * number + 1, shape, 3), shown(decode_images, 3)[0])
            brightness = cell(grid, row, 3 * number + 2, shape, 3).astype(float).sum(-1)
            error = np.kron((images[place] - decode_images[0]).abs()[0].numpy(), np.ones((3, 3)))
            assert stats.spearmanr(brightness.ravel(), error.ravel()).statistic > 0.99


def test_a_class_of_few_pictures_leaves_its_cells_white():
    vae, images = VAE((1, 8, 8)), torch.rand(1, 1, 8, 8)
    grid = grid_of(FIGURES["reconstruction_by_class"](vae, images, torch.tensor([0]), ("one",)))
    assert (grid[:, 2 + 3 * 74 :] == 255).all()


def test_samples_are_decoded_from_the_prior():
    vae = VAE((1, 24, 24), latent_dim=1)
    with torch.no_grad():
        vae.likelihood.logits[0].weight.zero_()
        vae.likelihood.logits[0].bias.zero_()
    grid = grid_of(FIGURES["samples"](vae, num_samples=10, grid_width=4))
    assert grid.shape == (3 * 74 + 2, 4 * 74 + 2, 3)
    assert sorted(set(grid[: 2 * 74].flatten().tolist())) == [128, 255]  # grey images, white lines
