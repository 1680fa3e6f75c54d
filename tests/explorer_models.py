"""Models and images for the page: of the shapes of each data set, made here, and trained for a moment."""

import torch

from vae import VAE
from vae.likelihoods import LIKELIHOODS

SHAPES = {"mnist": (1, 28, 28), "punks": (3, 24, 24), "digits": (1, 8, 8), "folder": (3, 20, 28)}
NETWORKS = ("mlp", "conv")
COLOURS = 24


def make_images(kind, n):
    """Ellipses on a ground: binary, in few colours, in 17 greys, or in any colour; float32 [n, C, H, W]."""
    channels, height, width = SHAPES[kind]
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    centre = torch.rand(n, 2, 1, 1, generator=generator) - 0.5
    radius = 0.2 + 0.5 * torch.rand(n, 2, 1, 1, generator=generator)
    distance = ((x - centre[:, 0]) / radius[:, 0]).square() + ((y - centre[:, 1]) / radius[:, 1]).square()
    soft = torch.sigmoid(6 * (1 - distance)).unsqueeze(1)
    if kind == "mnist":
        return (soft > 0.5).float()
    if kind == "digits":
        return ((soft * 16).round() / 16 * 255).round() / 255
    inner, ground = (torch.rand(n, 3, 1, 1, generator=generator) for _ in range(2))
    if kind == "folder":
        return ((ground + soft * (inner - ground)) * 255).round() / 255
    palette = torch.tensor(colours()) / 255
    chosen, behind = (palette[torch.randint(COLOURS, (n,), generator=generator)][..., None, None] for _ in range(2))
    return torch.where(soft > 0.5, chosen, behind)


def colours():
    generator = torch.Generator().manual_seed(1)
    return sorted({tuple(c) for c in torch.randint(256, (COLOURS, 3), generator=generator).tolist()})


def palette_of(kind, images):
    """What the data module would tell a categorical likelihood; of photographs the coarse part of their colours."""
    values = images.mul(255).round().long().movedim(1, -1).flatten(0, 2).unique(dim=0)
    return tuple(map(tuple, values[:: max(1, len(values) // 200)].tolist()))


def make_model(kind, network, likelihood, images, latent_dim=2, steps=40, **options):
    torch.manual_seed(0)
    options = {"hidden_dims": (48,), "channels": (6, 10)} | options
    if likelihood == "categorical":
        options["palette"] = palette_of(kind, images)
    vae = VAE(SHAPES[kind], latent_dim, likelihood=likelihood, network=network, **options)
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
    for _ in range(steps):
        some = images[torch.randint(len(images), (64,))]
        loss = -vae.elbo(some).elbo.mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 100.0)
        optimizer.step()
    return vae.eval().requires_grad_(False)


def all_likelihoods():
    return [*LIKELIHOODS]
