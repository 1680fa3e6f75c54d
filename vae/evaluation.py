"""What is measured of each image: pure functions of a VAE, images [B, C, H, W] and their numbers in the split, [B].

Each returns named columns with one row per image, [B] or [B, Z]. No value depends on the other images of the batch.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from vae import marginal
from vae.likelihoods import LogitLikelihood
from vae.model import NOISE_CHUNK, VAE
from vae.noise import counter_normal

EVALUATION_SEED = 1312_6114

Columns = dict[str, Tensor]
Measure = Callable[[VAE, Tensor, Tensor], Columns]
Estimator = Callable[[VAE, Tensor, Tensor], marginal.Estimate]


def evaluation_noise(index: Tensor, num_samples: int, dim: int) -> Iterator[Tensor]:
    """The noise of images, a function of their numbers [B] and of the sample alone: chunks [k, B, dim]."""
    for samples in torch.arange(num_samples, device=index.device).split(NOISE_CHUNK):
        yield counter_normal(EVALUATION_SEED, index, samples, dim)


def by_label(measures: Iterable[Measure], vae: VAE, x: Tensor, index: Tensor, labels: Tensor | None) -> Columns:
    """The columns of these measures; of a conditional model under that of each label, p(x|y).

    Args:
        x: images [B, C, H, W].
        index: their numbers in the split, [B].
        labels: their labels [B], or None; one at a time, since an estimator may decode for all of its images at once.
    """

    def measured(vae: VAE, x: Tensor, index: Tensor) -> Columns:
        return {name: column for measure in measures for name, column in measure(vae, x, index).items()}

    if vae.num_classes is None or labels is None:
        return measured(vae.given(labels), x, index)
    groups = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
    parts = [measured(vae.given(labels[some[0]]), x[some], index[some]) for some in groups]
    order = torch.cat(groups).argsort()
    return {name: torch.cat([part[name] for part in parts])[order] for name in parts[0]}


@torch.no_grad()
def evaluate_bound(vae: VAE, x: Tensor, index: Tensor, num_samples: int = 1) -> Columns:
    """The bound of equation 10 with L samples, and the posterior.

    Returns:
        index, elbo, reconstruction and kl, [B]; mean, scale and kl_per_dimension, [B, Z]; nats.
    """
    index = index.to(x.device)
    q_z = vae.encode(x)
    eps = torch.cat([*evaluation_noise(index, num_samples, vae.latent_dim)])
    posterior = {"mean": q_z.mean, "scale": q_z.stddev, "kl_per_dimension": vae.kl_per_dimension(q_z)}
    return {"index": index} | vae.elbo(x, eps=eps, q_z=q_z)._asdict() | posterior


@torch.no_grad()
def evaluate_reconstruction(vae: VAE, x: Tensor, index: Tensor | None = None) -> Columns:
    """How near the reconstruction at the posterior's mean comes: [B] each.

    Returns:
        mse: the mean squared error; ssim, where its window fits; exact_reconstructions: 1 where all 8-bit values are.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    reconstructions = vae.reconstruct(x)
    differs = (255 * reconstructions).round() != (255 * x).round()
    columns = {
        "mse": (reconstructions - x).square().mean((1, 2, 3)),
        "exact_reconstructions": 1 - differs.flatten(1).any(1).float(),
    }
    if min(x.shape[2:]) >= 6:  # it reaches five pixels beyond a border, into the image's reflection
        columns["ssim"] = structural_similarity_index_measure(reconstructions, x, data_range=1.0, reduction="none")
    return columns


def evaluate_marginal(vae: VAE, x: Tensor, index: Tensor, estimator: Estimator) -> Columns:
    """log p(x) as the estimator has it, its standard error and its bias, and what the estimator says of itself: [B]."""
    found = estimator(vae, x, index.to(x.device))
    return {
        "log_marginal": found.log_marginal,
        "estimator_stderr": found.stderr,
        "estimator_bias": found.bias,
        **found.details,
    }


def estimator(name: str, vae: VAE, num_samples: tuple[int, ...]) -> tuple[str, Estimator]:
    """An estimator of log p(x) and its name: quadrature, ais or importance.

    For auto it is quadrature where that takes minutes: up to three latent variables, and a log-density that is linear
    in the image, so that a matrix product gives all images at once. The others take hours for thousands of images.

    Args:
        num_samples: of importance, rising numbers, each of which gives a bound.

    Raises:
        ValueError: quadrature of more latent variables than it takes.
    """
    if name == "auto":
        is_fast = vae.latent_dim <= marginal.MAX_QUADRATURE_DIM and isinstance(vae.likelihood, LogitLikelihood)
        name = "quadrature" if is_fast else "importance"
    if name == "quadrature" and vae.latent_dim > marginal.MAX_QUADRATURE_DIM:
        most = marginal.MAX_QUADRATURE_DIM
        raise ValueError(f"quadrature: expected at most {most} latent variables, got {vae.latent_dim}; take ais")
    return name, {
        "quadrature": marginal.quadrature,
        "ais": marginal.annealed_importance_sampling,
        "importance": partial(marginal.importance_sampling, num_samples=num_samples),
    }[name]
