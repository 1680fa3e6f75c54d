"""The probes, on codes whose classes are known."""

import pytest
import torch

from vae.probe import probe_codes


def test_classes_that_a_line_separates():
    codes = torch.randn(400, 2)
    labels = (codes[:, 0] > 0).long()
    codes[:, 0] += 3 * (2 * labels - 1)
    found = probe_codes(codes[:300], labels[:300], codes[300:], labels[300:])
    assert found == {"probe_linear": 1, "probe_nearest_neighbour": 1}


def test_classes_that_no_line_separates():
    codes = torch.randn(2_000, 2)
    labels = (codes.prod(1) > 0).long()  # opposite quadrants
    found = probe_codes(codes[:1_500], labels[:1_500], codes[1_500:], labels[1_500:])
    assert found["probe_linear"] == pytest.approx(0.5, abs=0.12)
    assert found["probe_nearest_neighbour"] > 0.9


def test_the_scale_of_a_latent_variable_does_not_change_the_linear_probe():
    codes = torch.randn(500, 3, dtype=torch.float64)
    labels = (codes.sum(1) + torch.randn(500) > 0).long()
    found = [
        probe_codes(scaled[:400], labels[:400], scaled[400:], labels[400:])["probe_linear"]
        for scaled in (codes, codes * torch.tensor([1e-3, 1.0, 1e3]))
    ]
    assert found[0] == pytest.approx(found[1], abs=0.011)
