"""What is measured over a whole split: one row per image, kept until the end.

Keeping rows instead of running sums costs a few numbers per image. In return means are taken once, in double
precision, and standard errors and variances over the data come from the same rows.
"""

from collections.abc import Mapping, Sequence
from math import hypot, inf, isfinite, log, log10, nan, prod, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.utilities import dim_zero_cat

# The estimate of log p(x) is called too low if the 5 % quantile of the effective sample size is below this. In linear
# Gaussian models (1 to 20 latent variables, posteriors of 0.3 to 1.3 times the true scale, K from 10 to 1,000) it was
# then 0.05 nats or more too low; else less than 0.1, unless the posterior was narrower than half of the true scale. On
# MNIST with 2 latent variables and K = 5,000 a quantile of 2.6 went with 0.11 nats, and a claimed error of 0.02.
MIN_EFFECTIVE_SAMPLES = 5


class PerImageValues(Metric):
    """Keeps one row per image: `update` takes them as [B, M]."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, rows: Tensor) -> None:
        self.rows.append(rows.detach())

    def all_rows(self) -> Tensor:
        """The rows of every image so far, [N, M], in double precision."""
        return dim_zero_cat(self.rows).cpu().double()


class PerImageMean(PerImageValues):
    """Means over images of named values: `update` takes them as [B] tensors, nats per image."""

    def __init__(self):
        super().__init__()
        self.names: tuple[str, ...] = ()

    def update(self, values: Mapping[str, Tensor]) -> None:
        self.names = tuple(values)
        super().update(torch.stack(list(values.values()), dim=-1))

    @property
    def num_images(self) -> int:
        """The number of images so far."""
        return sum(map(len, self.rows))

    def first_not_finite(self) -> int | None:
        """Which update, counted from 0, was the first with a number that is not finite."""
        return next((place for place, rows in enumerate(self.rows) if not rows.isfinite().all()), None)

    def columns(self) -> dict[str, Tensor]:
        """The values of every image so far, [N] each, in double precision."""
        return dict(zip(self.names, self.all_rows().unbind(-1), strict=True))

    def compute(self) -> dict[str, float]:
        return {name: column.mean().item() for name, column in self.columns().items()}


def estimation_error(mc_error: Tensor) -> float:
    """The error of the mean of `log_marginal` over images, from the `mc_error` of each, [N]: nats.

    The root of its mean square by the delta method: sampling errors are independent, the biases, -mc_error^2 / 2, add.
    NaN, unknown, if the weights of one image stand on too few samples: then both say too little. A posterior far too
    narrow can hide even that, with tails that no sample has reached.
    """
    variance = mc_error.square()
    if not (variance <= 1 / MIN_EFFECTIVE_SAMPLES).all():  # also of NaN
        return nan
    return hypot(variance.sum().sqrt().item() / len(variance), variance.mean().item() / 2)


class ImportanceEstimateMetrics(PerImageMean):
    """The means, and how far to trust that of `log_marginal`.

    `log_marginal_stderr` is the standard error of the mean over images; `log_marginal_error` that of the same mean for
    these images, from the finite number of importance samples: see `estimation_error`.
    `effective_sample_size_5_percent` is the quantile over images.
    """

    def compute(self) -> dict[str, float]:
        columns = self.columns()
        n = len(columns["log_marginal"])
        mc_error = columns.pop("mc_error")
        means = {name: column.mean().item() for name, column in columns.items()}
        sizes = columns["effective_sample_size"]
        return means | {
            "log_marginal_stderr": columns["log_marginal"].std().item() / sqrt(n),
            "log_marginal_error": estimation_error(mc_error),
            "effective_sample_size_5_percent": np.quantile(sizes.numpy(), 0.05).item(),  # torch's takes 2^24 at most
            "num_images": n,
        }


def bits_per_dim(log_likelihood: Tensor, image_shape: Sequence[int]) -> Tensor:
    """A log-likelihood in nats per image, as bits per dimension: shared out over channels, height and width."""
    return -log_likelihood / (prod(image_shape) * log(2))


ACTIVE_THRESHOLD = 0.01  # Burda et al., arXiv 1509.00519, Section 5.2


def is_active(means: Tensor, threshold: float = ACTIVE_THRESHOLD) -> Tensor:
    """Which latent variables the data moves: the variance over it of the posterior's mean, [N, Z], is above that.

    Burda et al., arXiv 1509.00519, Section 5.2. Returns bool [Z].
    """
    return means.cpu().double().var(dim=0, correction=0) > threshold


class ActiveUnits(PerImageValues):
    """The number of active latent variables. `update` takes posterior means [B, Z]."""

    def compute(self) -> dict[str, int]:
        return {"active_units": int(is_active(self.all_rows()).sum())}


class PosteriorCodes(PerImageValues):
    """The posterior and the bounds of each image.

    `update` takes `index`, `elbo` and `log_marginal`, [B], and `means` and `scales`, [B, Z]. `compute` gives those of
    all images, in the order of `index`.
    """

    def update(self, index: Tensor, elbo: Tensor, log_marginal: Tensor, means: Tensor, scales: Tensor) -> None:
        columns = torch.stack([index, elbo, log_marginal], dim=-1)
        super().update(torch.cat([columns, means, scales], dim=-1))

    def compute(self) -> dict[str, Tensor]:
        rows = self.all_rows()
        rows = rows[rows[:, 0].argsort()]
        means, scales = rows[:, 3:].float().chunk(2, dim=-1)
        index, elbo, log_marginal = rows[:, :3].unbind(-1)
        return {"index": index.long(), "elbo": elbo, "log_marginal": log_marginal, "means": means, "scales": scales}


class KLPerDimension(PerImageValues):
    """The mean KL of each latent variable, nats. `update` takes the terms of the KL, [B, Z]."""

    def compute(self) -> dict[str, float]:
        return {f"kl_{place}": mean for place, mean in enumerate(self.all_rows().mean(0).tolist())}


class ReconstructionMetrics(PerImageMean):
    """How near reconstructions come: mean squared error, its PSNR in dB, and SSIM where its window fits.

    `exact_reconstructions` is the share of images all of whose 8-bit values are reconstructed.

    `update` takes reconstructions and images, [B, C, H, W] in [0, 1].
    """

    def update(self, reconstructions: Tensor, images: Tensor) -> None:
        differs = (255 * reconstructions).round() != (255 * images).round()
        values = {
            "mse": (reconstructions - images).square().mean((1, 2, 3)),
            "exact_reconstructions": 1 - differs.flatten(1).any(1).float(),
        }
        if min(images.shape[2:]) >= 6:  # it reaches five pixels beyond a border, into the image's reflection
            values["ssim"] = structural_similarity_index_measure(
                reconstructions, images, data_range=1.0, reduction="none"
            )
        super().update(values)

    def compute(self) -> dict[str, float]:
        means = super().compute()
        mse = means.pop("mse")
        return {"mse": mse, "psnr": -10 * log10(mse) if mse else inf, **means}


UNITS = {
    "active_units": "latent variables",
    "bits_per_dim": "bits per dimension",
    "exact_reconstructions": "of the images",
    "mse": "",
    "psnr": "dB",
    "ssim": "",
    "num_samples": "per image",
    "probe_linear": "of the images",
    "probe_nearest_neighbour": "of the images",
    "effective_sample_size": "samples",
    "effective_sample_size_5_percent": "samples",
    "num_images": "",
}


def summarize(found: Mapping[str, float], measure: str) -> tuple[dict, list[tuple[str, str, str]]]:
    """What a test has found, as it is written, and as rows of a table: name, value, unit.

    What is not finite, as the standard error of a single image, is None, and has no row.

    Args:
        found: the logged values, "test/NAME".
        measure: what the likelihood's log-density is, its `log_prob_kind`.
    """
    values: dict[str, Any] = {
        name.removeprefix("test/"): value if isfinite(value) else None for name, value in found.items()
    }
    bounds = {name.removeprefix("bound_"): values.pop(name) for name in [*values] if name.startswith("bound_")}
    kl = [values.pop(name) for name in [*values] if name.startswith("kl_")]
    values.setdefault("bits_per_dim", None)
    metrics = {"measure": measure, "num_samples": int([*bounds][-1]), **values, "bounds": bounds}
    metrics |= {"kl_per_dimension": kl} | {name: int(values[name]) for name in ("active_units", "num_images")}
    rows = [("measure", measure, "")]
    for name, value in metrics.items():
        if isinstance(value, float | int):
            text = f"{value:.4f}" if isinstance(value, float) else str(value)
            rows.append((name, text, UNITS.get(name, "nats per image")))
        elif name == "log_marginal_error":
            rows.append((name, "unknown", "log_marginal is a lower bound"))
    if len(bounds) > 1:
        rows += [
            (f"bound with {k}", f"{value:.4f}", "nats per image") for k, value in bounds.items() if value is not None
        ]
    finite = sorted((value for value in kl if value is not None), reverse=True)
    rows.append(("kl_per_dimension", " ".join(f"{value:.2f}" for value in finite), "nats, sorted"))
    return metrics, rows
