"""The table of what was measured of each image of a split, and what it says as a whole.

Keeping rows instead of running sums costs a few numbers per image. In return means are taken once, in double
precision, and standard errors and variances over the data come from the same rows.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from math import floor, hypot, inf, isfinite, log, log10, prod, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

BOUND = ("elbo", "reconstruction", "kl")
ACTIVE_THRESHOLD = 0.01  # Burda et al., arXiv 1509.00519, Section 5.2
MAX_UNRELIABLE = 0.05  # of the images, before the estimate of log p(x) is worth a warning


class ImageTable(Metric):
    """Named columns with a row per image: `update` takes them as [B] or [B, M], `columns` gives those of all processes.

    They come in double precision and, if one of them is `index`, in its order.

    Raises:
        ValueError: from `columns`: there is no row.
    """

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.widths: dict[str, int | None] = {}  # None: one number an image
        self.num_images = 0  # of this process, so far

    def update(self, columns: Mapping[str, Tensor]) -> None:
        self.widths = {name: None if column.ndim == 1 else column.shape[1] for name, column in columns.items()}
        dtype = reduce(torch.promote_types, (column.dtype for column in columns.values()))
        parts = [column.detach().to(dtype).reshape(len(column), -1) for column in columns.values()]
        self.rows.append(torch.cat(parts, dim=1))
        self.num_images += len(parts[0])

    def reset(self) -> None:
        super().reset()
        self.num_images = 0

    def first_not_finite(self) -> int | None:
        """Which update, counted from 0, was the first with a number that is not finite."""
        if not self.rows or torch.cat(self.rows).isfinite().all():
            return None
        return next(place for place, rows in enumerate(self.rows) if not rows.isfinite().all())

    def compute(self) -> Tensor:
        """The rows of all processes. `Metric` makes a scalar of a single number: `columns` gives them their shape."""
        return dim_zero_cat(self.rows)

    def columns(self) -> dict[str, Tensor]:
        if not self.rows:
            raise ValueError("expected one or more images, got none: the DataLoader has given no batch")
        widths = [width or 1 for width in self.widths.values()]
        parts = self.compute().cpu().double().reshape(-1, sum(widths)).split(widths, dim=1)
        columns = {
            name: part[:, 0] if width is None else part
            for (name, width), part in zip(self.widths.items(), parts, strict=True)
        }
        if "index" not in columns:
            return columns
        order = columns["index"].argsort()
        return {name: column[order] for name, column in columns.items()}


def means(columns: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean over images of each column, [N]."""
    return {name: column.mean().item() for name, column in columns.items()}


def summarize_bound(columns: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean bound and its terms, nats per image, and the number of active latent variables."""
    found = means({name: columns[name] for name in BOUND})
    return found | {"active_units": int(is_active(columns["mean"]).sum())}


def summarize_test(columns: Mapping[str, Tensor], image_shape: Sequence[int], in_bits: bool) -> dict[str, float]:
    """All numbers of a test, over its images.

    `log_marginal_stderr` is the standard error of the mean over images. `log_marginal_error` is that of the estimator
    for these very images, its bias included: sampling errors are independent, the biases add. It is infinite, unknown,
    if that of one image is.

    Args:
        in_bits: whether log p(x) is a log-likelihood, which can be given in bits.
    """
    n = len(columns["elbo"])
    mse = columns["mse"].mean().item()
    named = ("log_marginal", "exact_reconstructions", "ssim", "effective_sample_size", "acceptance")
    found = summarize_bound(columns) | means(
        {name: column for name, column in columns.items() if name in named or name.startswith("bound_")}
    )
    bias = columns["estimator_bias"]
    found |= {
        "log_marginal_stderr": columns["log_marginal"].std().item() / sqrt(n),
        "log_marginal_error": hypot(columns["estimator_stderr"].norm().item() / n, bias.mean().item()),
        "unreliable_images": bias.isinf().double().mean().item(),
        "mse": mse,
        "psnr": -10 * log10(mse) if mse else inf,
        "num_images": n,
    }
    if "effective_sample_size" in columns:
        sizes = columns["effective_sample_size"].numpy()
        found["effective_sample_size_5_percent"] = np.quantile(sizes, 0.05).item()  # torch's takes 2^24 at most
    if in_bits:
        found["bits_per_dim"] = bits_per_dim(columns["log_marginal"], image_shape).mean().item()
    return found | {f"kl_{place}": mean for place, mean in enumerate(columns["kl_per_dimension"].mean(0).tolist())}


def bits_per_dim(log_likelihood: Tensor, image_shape: Sequence[int]) -> Tensor:
    """A log-likelihood in nats per image, as bits per dimension: shared out over channels, height and width."""
    return -log_likelihood / (prod(image_shape) * log(2))


def is_active(means: Tensor, threshold: float = ACTIVE_THRESHOLD) -> Tensor:
    """Which latent variables the data moves: the variance over it of the posterior's mean, [N, Z], is above that.

    Burda et al., arXiv 1509.00519, Section 5.2. Returns bool [Z].
    """
    return means.cpu().double().var(dim=0, correction=0) > threshold


WORDS = {  # of the table on the screen, and the unit; nats per image where there is none
    "measure": ("log p(x|z) is a", ""),
    "elbo": ("ELBO", None),
    "reconstruction": ("reconstruction", None),
    "kl": ("KL divergence", None),
    "log_marginal": ("log p(x)", None),
    "log_marginal_stderr": ("  its standard error over the images", None),
    "log_marginal_error": ("  error of its estimate", None),
    "estimator": ("  estimated by", ""),
    "num_samples": ("  samples of each image", ""),
    "effective_sample_size": ("  effective sample size", "samples"),
    "effective_sample_size_5_percent": ("  of the worst twentieth of the images", "samples"),
    "bits_per_dim": ("log p(x) in bits", "per dimension"),
    "active_units": ("active latent variables", ""),
    "kl_per_dimension": ("KL of each latent variable", "nats, sorted"),
    "mse": ("mean squared error", ""),
    "psnr": ("peak signal-to-noise ratio", "dB"),
    "ssim": ("structural similarity", ""),
    "exact_reconstructions": ("exact reconstructions", "of the images"),
    "probe_linear": ("label found by a linear classifier", "of the images"),
    "probe_nearest_neighbour": ("label of the nearest code", "of the images"),
    "num_images": ("images", ""),
}
DECIMALS = {"exact_reconstructions": 3, "probe_linear": 3, "probe_nearest_neighbour": 3, "psnr": 1}


def as_written(found: Mapping[str, float], **described: Any) -> dict[str, Any]:
    """What a test has found as it is written: "test/NAME" is NAME, None what is not finite, lists what has numbers.

    Args:
        found: the logged values.
        described: what else the file says.
    """
    values: dict[str, Any] = {
        name.removeprefix("test/"): value if isfinite(value) else None for name, value in found.items()
    }
    bounds = {name.removeprefix("bound_"): values.pop(name) for name in [*values] if name.startswith("bound_")}
    kl = [values.pop(name) for name in [*values] if name.startswith("kl_")]
    absent = dict.fromkeys(("bits_per_dim", "effective_sample_size", "effective_sample_size_5_percent"))
    counts = {name: int(values[name]) for name in ("active_units", "num_images")}
    return absent | described | values | {"bounds": bounds, "kl_per_dimension": kl} | counts


def significant(error: float | None) -> int:
    """The decimals at which an error has two digits, from 1 to 4; 2 where it is unknown or 0."""
    return min(4, max(1, 1 - floor(log10(error)))) if error else 2


def as_table(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What a test has found as rows of a table: words, value, unit. Nats have the digits that their error leaves."""
    nats = significant(metrics["log_marginal_stderr"])
    rows = []
    for name, (words, unit) in WORDS.items():
        value = metrics.get(name)
        decimals = nats if unit is None else DECIMALS.get(name, 4)
        if name == "log_marginal_error":
            decimals = significant(value)
            if value is None:
                rows.append((words, "unknown", "log p(x) is at least that, in expectation"))
                continue
        if isinstance(value, float):
            rows.append((words, f"{value:.{decimals}f}", "nats per image" if unit is None else unit))
        elif isinstance(value, list):
            finite = sorted((part for part in value if part is not None), reverse=True)
            rows.append((words, " ".join(f"{part:.2f}" for part in finite), unit or ""))
        elif value is not None:
            rows.append((words, str(value), unit or ""))
    bounds = metrics["bounds"]
    if len(bounds) > 1:
        rows += [
            (f"bound with {k} samples", f"{value:.{nats}f}", "nats per image") for k, value in bounds.items() if value
        ]
    return rows
