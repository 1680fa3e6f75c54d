"""Models and images for the page: of the shapes of each data set, made here, and trained for a moment."""

import numpy as np
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


@torch.no_grad()
def equation_1(vae, image, half=7.0, side=500):
    """log p(x), ELBO and gap of an image [C, H, W], the error of the last two, and the mean of p(z|x)."""
    line = (torch.arange(side) + 0.5) / side * 2 * half - half
    z = torch.cartesian_prod(line, line)
    log_joint = torch.cat([vae.decode(some).log_prob(image) for some in z.split(4_000)]) + vae.prior.log_prob(z)
    log_joint = log_joint.double().numpy() + 2 * np.log(2 * half / side)
    highest = log_joint.max()
    log_p = highest + np.log(np.exp(log_joint - highest).sum())
    q_z = vae.encode(image.unsqueeze(0))
    z_of_q = q_z.mean + q_z.stddev * torch.randn(20_000, 2)
    log_w = torch.cat([vae.log_joint(image.unsqueeze(0), some.unsqueeze(1))[:, 0] for some in z_of_q.split(4_000)])
    log_w = (log_w - q_z.log_prob(z_of_q)).double().numpy()
    error = 5 * log_w.std() / len(log_w) ** 0.5
    return (log_p, log_w.mean(), log_p - log_w.mean()), error, np.exp(log_joint - log_p) @ z.numpy()
