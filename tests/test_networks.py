"""Trunks: whatever the image's size, what goes in comes out."""

import pytest
import torch

from vae.networks import NETWORKS, halved


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "size", [(1, 1), (4, 4), (3, 5), (8, 8), (9, 9), (8, 13), (28, 28), (31, 17), (24, 24), (33, 40)]
)
@pytest.mark.parametrize("channels", [(4,), (4, 6), (4, 6, 8)])
def test_sizes_are_kept_without_cropping(network, size, channels):
    encoder, decoder = NETWORKS[network]
    options = {"image_shape": (3, *size), "hidden_dims": (5,), "activation": "relu"}
    options |= {"channels": channels} if network == "conv" else {}
    assert encoder(**options)(torch.rand(2, 3, *size)).shape == (2, 5)
    trunk = decoder(latent_dim=2, **options)
    assert trunk.output_layer(7)(trunk(torch.rand(4, 2))).shape == (4, 7, *size)


def test_every_pixel_of_a_convolutional_decoder_has_a_gradient():
    """No row or column is padding that the decoder's weights cannot reach."""
    _, decoder = NETWORKS["conv"]
    trunk = decoder(latent_dim=2, image_shape=(1, 13, 10), hidden_dims=(9,), activation="tanh", channels=(4, 6))
    jacobian = torch.autograd.functional.jacobian(lambda z: trunk(z).sum(-1), torch.randn(1, 2))
    assert (jacobian.abs().amax((0, 3, 4)) > 0).all()


def test_convolutions_halve_and_round_up():
    assert halved((28, 9), 3) == [(28, 9), (14, 5), (7, 3), (4, 2)]
