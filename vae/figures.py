"""The pictures: one pure function each, model and tensors in, image out. Nothing is read, written or trained here.

A figure that makes no sense for a model raises `NotApplicable`, which says why.
"""

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from vae.model import VAE
from vae.registry import Registry


class NotApplicable(Exception):
    """This figure does not apply to this model; the message says why."""


@torch.no_grad()
def reconstruction(vae: VAE, images: Tensor) -> Image.Image:
    """Pictures beside their reconstructions at the posterior's mean: originals left, decoded right.

    Args:
        images: [N, C, H, W], values in [0, 1]; the first 40 are shown, five pairs in a row.
    """
    originals = images[:40]
    pairs = torch.stack([enlarge(originals, 72), enlarge(vae.reconstruct(originals), 72)], dim=1)
    pairs = torch.stack([make_grid(pair, nrow=2, padding=2, pad_value=1.0) for pair in pairs])
    return to_pil_image(make_grid(pairs, nrow=5, padding=8, pad_value=1.0))


@torch.no_grad()
def samples(vae: VAE, images: Tensor) -> Image.Image:
    """Eight by eight pictures for draws from p(z), the same draws each time. `images` are not looked at."""
    z = torch.randn(64, vae.latent_dim, generator=torch.Generator().manual_seed(0))
    pictures = vae.picture(z.to(vae.origin.device))
    return to_pil_image(make_grid(enlarge(pictures, 72), nrow=8, padding=2, pad_value=1.0))


@torch.no_grad()
def learned_manifold(vae: VAE, images: Tensor) -> Image.Image:
    """The paper's Figure 4: a grid over the unit square, through the Gaussian's inverse CDF, decoded; 20 by 20.

    The first latent variable runs to the right, the second one up. `images` are not looked at.

    Raises:
        NotApplicable: the latent space does not have two dimensions.
    """
    if vae.latent_dim != 2:
        raise NotApplicable(f"learned_manifold needs a latent space of 2 dimensions; this model has {vae.latent_dim}")
    size = 20
    quantiles = torch.special.ndtri((torch.arange(size) + 0.5) / size)
    z = torch.stack(torch.meshgrid(quantiles, quantiles.flip(0), indexing="xy"), dim=-1)  # row, column, Z
    pictures = vae.picture(z.flatten(0, 1).to(vae.origin.device))
    return to_pil_image(make_grid(enlarge(pictures, 48), nrow=size, padding=2, pad_value=1.0))


def enlarge(pictures: Tensor, at_least: int) -> Tensor:
    """Pictures [..., H, W] enlarged by the smallest whole number that makes them that many pixels high and wide."""
    factor = -(-at_least // min(pictures.shape[-2:]))
    return pictures.cpu().repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)


FIGURES = Registry(
    "figure", {"learned_manifold": learned_manifold, "reconstruction": reconstruction, "samples": samples}
)
