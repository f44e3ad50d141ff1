"""The embedded digits: split, counts and constants, against known facts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdbench.data import digits


def test_digits_split_is_whole_stratified_and_disjoint():
    data = digits.load(None, False)
    assert data.train.inputs.shape == (1347, 1, 8, 8)
    assert data.test.inputs.shape == (450, 1, 8, 8)
    shares = [
        torch.bincount(s.targets).double() / len(s.targets)
        for s in (data.train, data.test)
    ]
    assert (shares[0] - shares[1]).abs().max() < 0.003
    rows = torch.cat([data.train.inputs, data.test.inputs]).flatten(1).numpy()
    from sklearn.datasets import load_digits

    expected = (15 * load_digits().data).astype(np.uint8)  # 16 grey levels
    assert sorted(map(bytes, rows)) == sorted(map(bytes, expected))


def test_digits_constants_are_those_of_the_training_pixels():
    data = digits.load(None, False)
    pixels = data.train.inputs.double().numpy()
    assert data.mean[0] == pytest.approx(pixels.mean())
    assert data.std[0] == pytest.approx(pixels.std())


def test_digits_split_never_changes():
    """A record's correctness bits mean the same item for ever."""
    data = digits.load(None, False)
    assert data.test.targets[:12].tolist() == FIRST_TEST_LABELS


FIRST_TEST_LABELS = [2, 0, 4, 9, 4, 1, 2, 4, 6, 7, 9, 1]
