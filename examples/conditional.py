"""A conditional VAE, p(x|y) for images x with labels y: both networks get the label beside their input.

python3 train.py --import examples/conditional.py --data Digits --model.network conditional
python3 test.py --import examples/conditional.py
python3 visualizations.py --import examples/conditional.py --figures samples --num_samples 80
"""

from math import prod

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from vae import register_network
from vae.networks import MLP, MLPDecoder


class ConditionalEncoder(MLP):
    """Images [B, C, H, W] and labels [B] -> features [B, out_features]: an MLP of the pixels and the one-hot label."""

    def __init__(self, image_shape, hidden_dims, activation: str, num_classes: int):
        super().__init__(prod(image_shape) + num_classes, hidden_dims, activation)
        self.num_classes = num_classes

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return super().forward(torch.cat([x.flatten(1), one_hot(labels, self.num_classes).to(x)], dim=1))


class ConditionalDecoder(MLPDecoder):
    """Latents [B, Z] and labels [B] -> features: the paper's decoder of the latents and the one-hot label."""

    def __init__(self, latent_dim: int, image_shape, hidden_dims, activation: str, num_classes: int):
        super().__init__(latent_dim + num_classes, image_shape, hidden_dims, activation)
        self.num_classes = num_classes

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return super().forward(torch.cat([z, one_hot(labels, self.num_classes).to(z)], dim=1))


register_network("conditional", ConditionalEncoder, ConditionalDecoder)
