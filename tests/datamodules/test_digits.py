"""Digits: scikit-learn's, unchanged."""

import numpy as np
import torch
from helpers import SPLITS, ready
from sklearn.datasets import load_digits

from datamodules import Digits


def test_digits_are_scikit_learns():
    splits = ready(Digits()).splits
    assert [len(splits[name]) for name in SPLITS] == [1_197, 300, 300]
    expected = load_digits()
    images = torch.cat([splits[name].images for name in SPLITS]).squeeze(1).numpy()
    np.testing.assert_allclose(images / 255, expected.images / 16, atol=0.5 / 255)
    assert torch.cat([splits[name].labels for name in SPLITS]).tolist() == expected.target.tolist()
