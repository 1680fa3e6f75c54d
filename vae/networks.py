"""Trunks: plain functions from tensor to tensor, which know nothing of distributions or losses."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from vae.registry import Registry

ACTIVATIONS = Registry("activation", {"relu": nn.ReLU, "tanh": nn.Tanh})


class MLP(nn.Sequential):
    """Fully connected layers, each followed by the activation (Appendix C): [..., in_features] -> [..., out_features].

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


NETWORKS = Registry("network", {"mlp": MLP})
