"""Metrics that are collected batch by batch, against numpy and scipy."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from vae import VAE
from vae.evaluation import evaluate_reconstruction
from vae.metrics import ImageTable, as_table, as_written, is_active, means, summarize_test


def test_images_are_counted_one_by_one():
    table = ImageTable()
    table.update({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([0.0, 0.0])})
    table.update({"a": torch.tensor([6.0]), "b": torch.tensor([3.0])})
    assert means(table.columns()) == {"a": 3.0, "b": 1.0}  # not the mean of the batches' means
    assert table.num_images == 3


def test_rows_come_in_the_order_of_the_images():
    columns = {"index": torch.tensor([4, 1, 5, 0, 3, 2]), "elbo": torch.randn(6), "mean": torch.randn(6, 2)}
    table = ImageTable()
    for some in (slice(0, 3), slice(3, 6)):
        table.update({name: column[some] for name, column in columns.items()})
    found = table.columns()
    order = columns["index"].argsort()
    assert found.keys() == columns.keys()
    for name, values in columns.items():
        assert torch.equal(found[name], values[order].double()), name


@pytest.mark.parametrize("width", [1, 2])
def test_the_row_of_a_single_image_keeps_its_shape(width):
    """A Metric makes scalars of what its `compute` returns."""
    columns = {"elbo": torch.tensor([-3.0]), "mean": torch.zeros(1, width)}
    for names in (["elbo"], ["elbo", "mean"]):
        table = ImageTable()
        table.update({name: columns[name] for name in names})
        assert {name: column.shape for name, column in table.columns().items()} == {
            name: columns[name].shape for name in names
        }


def test_the_first_update_that_is_not_finite_is_found():
    table = ImageTable()
    assert table.first_not_finite() is None
    for value in (0.0, 1.0, float("nan"), 2.0, float("inf")):
        table.update({"elbo": torch.tensor([value, 0.0])})
    assert table.first_not_finite() == 2


def columns_of_a_test(**columns):
    n = 2
    zeros = {name: torch.zeros(n).double() for name in ("elbo", "reconstruction", "kl", "mse", "exact_reconstructions")}
    return zeros | {"mean": torch.zeros(n, 3), "kl_per_dimension": torch.zeros(n, 3)} | columns


def test_the_errors_of_a_test():
    """Sampling errors of the images are independent, their biases add."""
    columns = columns_of_a_test(
        log_marginal=torch.tensor([-4.0, -8.0]).double(),
        estimator_stderr=torch.tensor([0.3, 0.4]).double(),
        estimator_bias=torch.tensor([0.01, 0.03]).double(),
        effective_sample_size=torch.tensor([10.0, 30.0]).double(),
    )
    found = summarize_test(columns, (1, 2, 2), in_bits=True)
    expected = {"log_marginal": -6, "log_marginal_stderr": 2, "log_marginal_error": np.hypot(0.25, 0.02)}
    expected |= {"effective_sample_size": 20, "effective_sample_size_5_percent": 11, "unreliable_images": 0}
    expected |= {"bits_per_dim": 6 / np.log(2) / 4, "num_images": 2}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    columns["estimator_bias"][1] = np.inf
    found = summarize_test(columns, (1, 2, 2), in_bits=False)
    assert (found["log_marginal_error"], found["unreliable_images"]) == (np.inf, 0.5)
    assert "bits_per_dim" not in found


def test_the_table_has_words_and_the_digits_that_the_error_leaves():
    found = {"elbo": -101.23456, "log_marginal": -99.87654, "log_marginal_stderr": 0.0432, "active_units": 2.0}
    found |= {"log_marginal_error": np.inf, "num_images": 9.0, "kl_0": 0.5, "kl_1": 3.25, "bound_1": -101.2}
    found |= {"bound_10": -99.87654}
    metrics = as_written({f"test/{name}": value for name, value in found.items()}, measure="cross-entropy", split="val")
    assert (metrics["split"], metrics["bits_per_dim"], metrics["log_marginal_error"]) == ("val", None, None)
    assert (metrics["kl_per_dimension"], metrics["num_images"]) == ([0.5, 3.25], 9)
    rows = as_table(metrics)
    assert ("log p(x)", "-99.877", "nats per image") in rows
    assert ("  error of its estimate", "unknown", "log p(x) is at least that, in expectation") in rows
    assert ("KL of each latent variable", "3.25 0.50", "nats, sorted") in rows
    assert ("bound with 1 samples", "-101.200", "nats per image") in rows
    exact = as_table(metrics | {"log_marginal_error": 0.00123})
    assert ("  error of its estimate", "0.0012", "nats per image") in exact


def quality(reconstructions, images):
    """The columns of images whose reconstructions are given."""
    vae = VAE(tuple(images.shape[1:]), hidden_dims=4)
    vae.reconstruct = lambda x: reconstructions
    return evaluate_reconstruction(vae, images)


def test_the_quality_of_reconstructions_meets_numpy():
    a, b = torch.rand(20, 1, 8, 8), torch.rand(20, 1, 8, 8)
    found = quality(a, b)
    mse = np.square(a.numpy() - b.numpy()).mean((1, 2, 3))
    np.testing.assert_allclose(found["mse"], mse, rtol=1e-5)
    estimate = dict.fromkeys(("log_marginal", "estimator_stderr", "estimator_bias"), found["mse"])
    summary = summarize_test(columns_of_a_test(mse=found["mse"], **estimate), (1, 8, 8), in_bits=False)
    assert summary["psnr"] == pytest.approx(-10 * np.log10(mse.mean()), rel=1e-5)
    blur = partial(gaussian_filter, sigma=1.5, truncate=3.5, mode="mirror", axes=(2, 3))
    a, b = a.double().numpy(), b.double().numpy()
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, covariance = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    ssim = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
    ssim /= (mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)
    np.testing.assert_allclose(found["ssim"].mean(), ssim.mean(), atol=1e-4)
    assert "ssim" not in quality(torch.rand(2, 1, 5, 20), torch.rand(2, 1, 5, 20))
    same = quality(torch.ones(2, 1, 8, 8), torch.ones(2, 1, 8, 8))
    assert (same["mse"].tolist(), same["exact_reconstructions"].tolist()) == ([0, 0], [1, 1])
    assert same["ssim"].tolist() == pytest.approx([1, 1])


def test_a_reconstruction_is_exact_if_all_its_8_bit_values_are():
    images = torch.randint(256, (4, 3, 8, 8)) / 255
    reconstructions = images.clone()
    reconstructions[1] += 0.4 / 255
    reconstructions[2, 0, 0, 0] += 1 / 255
    assert quality(reconstructions, images)["exact_reconstructions"].tolist() == [1, 1, 0, 1]


def test_active_units_are_those_whose_mean_moves():
    means = torch.randn(1000, 4) * torch.tensor([1.0, 0.2, 0.05, 0.0]) + 3
    assert is_active(means).tolist() == [True, True, False, False]
