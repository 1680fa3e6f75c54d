"""A likelihood, a network, an objective, a data set and a figure of one's own; docs/own-parts.md has the commands.

`--import examples/own_parts.py` runs this file before the command line is read. Each part is registered with one call.
"""

from math import log, prod

import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.distributions import Independent, Laplace

from datamodules import ImageDataModule, ImageDataset, register_dataset
from vae import VAE, register_likelihood, register_network, register_objective
from vae.figures import register_figure
from vae.likelihoods import MeanLikelihood, at_least_float32
from vae.model import reparameterize
from vae.networks import MLPDecoder
from vae.noise import StepNoise
from vae.objectives import Options


class LaplaceLikelihood(MeanLikelihood):
    """p(x|z) of real pixels with one scale for all images: the absolute error as a log-density.

    Arguments that `VAE` has too, here `scale`, get their values from it: `--model.scale 0.2`.
    """

    def __init__(self, output_layer, image_shape, scale: float):
        super().__init__(output_layer, image_shape)  # makes `self.logits`, the layer from features to C values a pixel
        self.scale = scale

    def forward(self, features: Tensor) -> Independent:  # features [..., F] -> event_shape [C, H, W]
        loc = at_least_float32(self.logits(features)).sigmoid()
        return Independent(Laplace(loc, self.scale, validate_args=False), 3, validate_args=False)

    def log_prob_kind(self, binary: bool) -> str:
        return "log-density"


register_likelihood("laplace", LaplaceLikelihood)


class ResidualEncoder(nn.Module):
    """Images [B, C, H, W] -> features [B, out_features]: a linear layer and residual blocks."""

    def __init__(self, image_shape, hidden_dims):
        super().__init__()
        self.out_features = hidden_dims[-1]
        self.input = nn.Sequential(nn.Flatten(), nn.Linear(prod(image_shape), self.out_features))
        self.blocks = nn.ModuleList(nn.Linear(self.out_features, self.out_features) for _ in hidden_dims)

    def forward(self, x: Tensor) -> Tensor:
        h = self.input(x)
        for block in self.blocks:
            h = h + block(h.relu())
        return h


register_network("residual", ResidualEncoder, MLPDecoder)  # a part of this project can be one half


def renyi(vae: VAE, x: Tensor, noise: StepNoise, options: Options, alpha: float = 0.5):
    """The variational Renyi bound (arXiv 1602.02311): iwae at alpha 0, the ELBO as alpha tends to 1."""
    q_z = vae.encode(x)
    log_w = vae.log_weights(x, q_z, reparameterize(q_z, noise.eps))  # [K, B]
    bound = (((1 - alpha) * log_w).logsumexp(0) - log(len(log_w))) / (1 - alpha)  # [B]
    return bound, {"renyi_bound": bound}  # what is raised, and what is logged: train/renyi_bound


register_objective("renyi", renyi)


@register_dataset
class Bars(ImageDataModule):
    """The bars problem: 8 x 8 images in which each row and each column is white with probability 1/8."""

    name = "bars"  # in the names of files
    image_shape = (1, 8, 8)

    def load(self) -> dict[str, ImageDataset]:  # called once, when the images are needed
        generator = torch.Generator().manual_seed(0)
        rows, columns = torch.rand(2, 1_000, 8, generator=generator) < 1 / 8
        images = (rows[:, :, None] | columns[:, None, :]).to(torch.uint8).mul(255)[:, None]  # [N, C, H, W]
        train, val, test = map(ImageDataset, images.split([600, 200, 200]))
        return {"train": train, "val": val, "test": test}


@register_figure
def posterior_scales(vae: VAE, images: Tensor, *, bins: int = 20) -> Figure:
    """How certain the encoder is: a histogram of the standard deviations of q(z|x).

    Args:
        bins: Bars of the histogram in posterior_scales.
    """
    figure, axes = plt.subplots()
    axes.hist(vae.encode(images).stddev.flatten().cpu(), bins=bins)
    axes.set(xlabel="standard deviation of q(z|x)", ylabel="images and dimensions")
    return figure
