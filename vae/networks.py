"""Encoders and decoders: functions from tensor to tensor, without distributions or losses.

An encoder maps images [B, C, H, W] to features [B, F]. A decoder maps latents [B, Z] to features; its
`output_layer(n)` makes the layer that maps these features to n parameters at each position, [..., n, H, W].
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from math import prod

from torch import Tensor, nn

ACTIVATIONS = {"relu": partial(nn.ReLU, inplace=True), "tanh": nn.Tanh}


class MLP(nn.Sequential):
    """Fully connected layers, each followed by the activation (Appendix C): [B, in_features] -> [B, out_features].

    Args:
        in_features: width of the input.
        hidden_dims: width of each layer, first to last; the last one is `out_features`.
        activation: a name in `ACTIVATIONS`.
    """

    def __init__(self, in_features: int, hidden_dims: Sequence[int], activation: str):
        layers = []
        for fan_in, fan_out in pairwise((in_features, *hidden_dims)):
            layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[activation]()]
        super().__init__(*layers)
        self.out_features = hidden_dims[-1]


class MLPEncoder(nn.Sequential):
    """The paper's encoder: the image as one vector, through fully connected layers."""

    def __init__(self, image_shape: Sequence[int], hidden_dims: Sequence[int], activation: str):
        super().__init__(nn.Flatten(), MLP(prod(image_shape), hidden_dims, activation))
        self.out_features = hidden_dims[-1]


class MLPDecoder(MLP):
    """The paper's decoder: fully connected layers; the last one, `output_layer`, has a unit for every parameter."""

    def __init__(self, latent_dim: int, image_shape: Sequence[int], hidden_dims: Sequence[int], activation: str):
        super().__init__(latent_dim, hidden_dims, activation)
        self.size = tuple(image_shape[1:])

    def output_layer(self, num_parameters: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(self.out_features, num_parameters * prod(self.size)),
            nn.Unflatten(-1, (num_parameters, *self.size)),
        )


def halved(size: Sequence[int], times: int) -> list[tuple[int, int]]:
    """Height and width before and after each of so many convolutions of stride 2, which round up."""
    height, width = size
    return [(-(-height // 2**n), -(-width // 2**n)) for n in range(times + 1)]


class ConvEncoder(nn.Sequential):
    """Convolutions 3 x 3 of stride 2, then fully connected layers.

    Args:
        channels: of each convolution, first to last.
    """

    def __init__(
        self, image_shape: Sequence[int], hidden_dims: Sequence[int], activation: str, channels: Sequence[int]
    ):
        layers = []
        for fan_in, fan_out in pairwise((image_shape[0], *channels)):
            layers += [nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1), ACTIVATIONS[activation]()]
        features = channels[-1] * prod(halved(image_shape[1:], len(channels))[-1])
        super().__init__(*layers, nn.Flatten(), MLP(features, hidden_dims, activation))
        self.out_features = hidden_dims[-1]


class ConvDecoder(nn.Module):
    """The encoder's mirror: fully connected layers, then transposed convolutions back through the same sizes.

    Where the encoder rounded up, `output_padding` says whether to an even or to an odd size, so that nothing is ever
    cropped. The features come with the channels last, [B, H, W, F].
    """

    def __init__(
        self,
        latent_dim: int,
        image_shape: Sequence[int],
        hidden_dims: Sequence[int],
        activation: str,
        channels: Sequence[int],
    ):
        super().__init__()
        *sizes, smallest = halved(image_shape[1:], len(channels))
        widths = (*channels[::-1], channels[0])
        self.mlp = MLP(latent_dim, (*hidden_dims, widths[0] * prod(smallest)), activation)
        layers = [nn.Unflatten(1, (widths[0], *smallest))]
        for (fan_in, fan_out), size in zip(pairwise(widths), reversed(sizes), strict=True):
            even = [(n + 1) % 2 for n in size]
            layers += [
                nn.ConvTranspose2d(fan_in, fan_out, 3, stride=2, padding=1, output_padding=even),
                ACTIVATIONS[activation](),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.out_features = widths[-1]

    def forward(self, z: Tensor) -> Tensor:
        return self.convolutions(self.mlp(z)).movedim(1, -1)

    def output_layer(self, num_parameters: int) -> nn.Module:
        return nn.Sequential(nn.Linear(self.out_features, num_parameters), ChannelsFirst())


class ChannelsFirst(nn.Module):
    """[..., H, W, N] -> [..., N, H, W]."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.movedim(-1, -3)


NETWORKS = {"mlp": (MLPEncoder, MLPDecoder), "conv": (ConvEncoder, ConvDecoder)}
