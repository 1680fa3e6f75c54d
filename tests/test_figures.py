"""The pictures, pixel by pixel."""

import numpy as np
import pytest
import torch
from scipy import stats

from vae import VAE
from vae.figures import FIGURES, NotApplicable, enlarge, learned_manifold, reconstruction, samples

SHAPES = [(1, 8, 8), (3, 24, 24), (3, 5, 9)]


def pixels(image):
    return np.asarray(image)


def shown(pictures, factor):
    """Pictures [N, C, H, W] as they must appear: uint8 [N, factor H, factor W, 3]."""
    pictures = (pictures.mul(255).byte().numpy()).transpose(0, 2, 3, 1)
    return np.kron(np.broadcast_to(pictures, (*pictures.shape[:3], 3)), np.ones((1, factor, factor, 1), np.uint8))


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_enlarged_by_whole_numbers(shape):
    pictures = torch.rand(2, *shape)
    large = enlarge(pictures, 48)
    factor = large.shape[-1] // shape[-1]
    assert large.shape[-2:] == (factor * shape[1], factor * shape[2])
    assert min(large.shape[-2:]) >= 48
    assert torch.equal(large, torch.kron(pictures, torch.ones(1, 1, factor, factor)))


@pytest.mark.parametrize("shape", SHAPES)
def test_reconstruction_has_originals_left_and_decoded_right(shape):
    vae, images = VAE(shape), torch.rand(12, *shape)
    factor = -(-72 // min(shape[1:]))
    height, width = factor * shape[1], factor * shape[2]
    image = pixels(reconstruction(vae, images))
    with torch.no_grad():
        originals, decoded = shown(images, factor), shown(vae.reconstruct(images), factor)
    for i in (0, 4, 5, 11):  # five pairs a row; each pair with a border of 2, and 8 between pairs
        top, left = 10 + i // 5 * (height + 12), 10 + i % 5 * (2 * width + 14)
        np.testing.assert_array_equal(image[top : top + height, left : left + width], originals[i])
        np.testing.assert_array_equal(image[top : top + height, left + width + 2 : left + 2 * width + 2], decoded[i])


def test_the_manifold_is_decoded_from_the_gaussians_quantiles():
    vae = VAE((1, 24, 24))
    image = pixels(learned_manifold(vae, torch.empty(0)))
    assert image.shape == (20 * 50 + 2, 20 * 50 + 2, 3)
    for row, column in ((0, 0), (0, 19), (13, 4)):
        z = stats.norm.ppf([(column + 0.5) / 20, (19 - row + 0.5) / 20])  # to the right, and up
        with torch.no_grad():
            expected = shown(vae.decode(torch.tensor(z, dtype=torch.float32)).mean.unsqueeze(0), 2)[0]
        found = image[2 + 50 * row : 50 + 50 * row, 2 + 50 * column : 50 + 50 * column]
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_the_manifold_needs_two_dimensions():
    with pytest.raises(NotApplicable, match="learned_manifold needs a latent space of 2 dimensions; this model has 3"):
        learned_manifold(VAE((1, 8, 8), latent_dim=3), torch.empty(0))


def test_samples_are_decoded_from_the_prior():
    vae = VAE((1, 24, 24), latent_dim=1)
    with torch.no_grad():
        vae.likelihood.logits[0].weight.zero_()
        vae.likelihood.logits[0].bias.zero_()
    image = pixels(samples(vae, torch.empty(0)))
    assert image.shape == (8 * 74 + 2, 8 * 74 + 2, 3)
    assert sorted(set(image.flatten().tolist())) == [127, 255]  # grey pictures, white lines


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_the_same_picture_each_time(name):
    vae, images = VAE((3, 8, 8)), torch.rand(40, 3, 8, 8)
    first = pixels(FIGURES[name](vae, images))
    torch.manual_seed(1)
    np.testing.assert_array_equal(first, pixels(FIGURES[name](vae, images)))
