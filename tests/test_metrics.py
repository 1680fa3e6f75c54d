"""Metrics that are collected batch by batch, against numpy and scipy."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from vae.metrics import (
    ActiveUnits,
    ImportanceEstimateMetrics,
    PerImageMean,
    PosteriorCodes,
    ReconstructionMetrics,
    bits_per_dim,
    summarize,
)


def test_images_are_counted_one_by_one():
    metric = PerImageMean()
    metric.update({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([0.0, 0.0])})
    metric.update({"a": torch.tensor([6.0]), "b": torch.tensor([3.0])})
    assert metric.compute() == {"a": 3.0, "b": 1.0}  # not the mean of the batches' means


def test_errors_of_the_importance_estimate():
    metric = ImportanceEstimateMetrics()
    log_marginal = torch.tensor([-4.0, -8.0])
    metric.update(
        {
            "log_marginal": log_marginal,
            "mc_error": torch.tensor([0.3, 0.4]),
            "effective_sample_size": torch.tensor([10.0, 30.0]),
            "bits_per_dim": bits_per_dim(log_marginal, (1, 2, 2)),
        }
    )
    assert metric.compute() == pytest.approx(
        {
            "log_marginal": -6.0,
            "log_marginal_stderr": 2,
            "log_marginal_error": np.hypot(0.25, (0.09 + 0.16) / 4),
            "effective_sample_size": 20,
            "effective_sample_size_5_percent": 11,
            "bits_per_dim": 6 / np.log(2) / 4,
            "num_images": 2,
        }
    )


def test_the_summary_says_how_many_samples_count():
    found = {"test/bound_100": -5.0, "test/effective_sample_size": 20.0, "test/effective_sample_size_5_percent": 3.0}
    found["test/log_marginal_error"] = float("nan")
    metrics, rows = summarize(found | {"test/active_units": 2.0, "test/num_images": 9.0}, "cross-entropy")
    assert (metrics["effective_sample_size"], metrics["effective_sample_size_5_percent"]) == (20, 3)
    assert metrics["bits_per_dim"] is None
    assert metrics["log_marginal_error"] is None
    assert ("log_marginal_error", "unknown", "log_marginal is a lower bound") in rows
    assert ("effective_sample_size", "20.0000", "samples") in rows
    assert ("effective_sample_size_5_percent", "3.0000", "samples") in rows


def test_the_quality_of_reconstructions_meets_numpy():
    a, b = torch.rand(20, 1, 8, 8), torch.rand(20, 1, 8, 8)
    metrics = ReconstructionMetrics()
    for part in (slice(0, 7), slice(7, 20)):
        metrics.update(a[part], b[part])
    found = metrics.compute()
    mse = np.square(a.numpy() - b.numpy()).mean()
    assert found["mse"] == pytest.approx(mse, rel=1e-5)
    assert found["psnr"] == pytest.approx(-10 * np.log10(mse), rel=1e-5)
    blur = partial(gaussian_filter, sigma=1.5, truncate=3.5, mode="mirror", axes=(2, 3))
    a, b = a.double().numpy(), b.double().numpy()
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, covariance = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    ssim = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
    ssim /= (mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)
    assert found["ssim"] == pytest.approx(ssim.mean(), abs=1e-4)
    small = ReconstructionMetrics()
    small.update(torch.rand(2, 1, 5, 20), torch.rand(2, 1, 5, 20))
    assert "ssim" not in small.compute()
    same = ReconstructionMetrics()
    same.update(torch.ones(2, 1, 8, 8), torch.ones(2, 1, 8, 8))
    found = same.compute()
    assert found == {"mse": 0.0, "psnr": float("inf"), "ssim": pytest.approx(1.0), "exact_reconstructions": 1.0}


def test_a_reconstruction_is_exact_if_all_its_8_bit_values_are():
    images = torch.randint(256, (4, 3, 8, 8)) / 255
    reconstructions = images.clone()
    reconstructions[1] += 0.4 / 255
    reconstructions[2, 0, 0, 0] += 1 / 255
    metrics = ReconstructionMetrics()
    metrics.update(reconstructions, images)
    assert metrics.compute()["exact_reconstructions"] == 0.75


def test_active_units_are_those_whose_mean_moves():
    metric = ActiveUnits()
    means = torch.randn(1000, 4) * torch.tensor([1.0, 0.2, 0.05, 0.0]) + 3
    for batch in means.split(300):
        metric.update(batch)
    assert metric.compute() == {"active_units": 2}


def test_codes_come_in_the_order_of_the_images():
    means, scales, bound = torch.randn(6, 2), torch.rand(6, 2), torch.randn(6)
    metric = PosteriorCodes()
    for index in (torch.tensor([4, 1, 5]), torch.tensor([0, 3, 2])):
        metric.update(index, bound[index], 2 * bound[index].double(), means[index], scales[index])
    expected = {"index": torch.arange(6), "means": means, "scales": scales}
    expected |= {"elbo": bound.double(), "log_marginal": 2 * bound.double()}
    found = metric.compute()
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert torch.equal(found[name], values), name
