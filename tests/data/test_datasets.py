"""The built-in datasets: splits, counts and constants, against known facts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdbench.api import UserError
from kdbench.data import digits, mnist


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

    expected = load_digits().data.astype(np.uint8)
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


@pytest.mark.data
def test_mnist_is_the_known_one(data_dir):
    data = mnist.load(data_dir, False)
    assert data.train.inputs.shape == (60_000, 1, 28, 28)
    assert data.test.inputs.shape == (10_000, 1, 28, 28)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(data.train.targets).tolist() == counts
    pixels = data.train.inputs.double()
    assert pixels.mean().item() == pytest.approx(data.mean[0], abs=0.02)
    assert pixels.std().item() == pytest.approx(data.std[0], abs=0.02)


def test_missing_mnist_says_how_to_get_it(tmp_path):
    with pytest.raises(UserError, match="--download"):
        mnist.load(tmp_path, False)
    with pytest.raises(UserError, match="KDBENCH_DATA"):
        mnist.load(None, False)


@pytest.mark.data
def test_truncated_mnist_is_named(data_dir, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for source in (data_dir / "MNIST" / "raw").iterdir():
        target = raw / source.name
        if source.name == "train-images-idx3-ubyte":
            target.write_bytes(source.read_bytes()[:10_000])
        else:
            target.symlink_to(source)
    with pytest.raises(UserError, match="mnist"):
        mnist.load(tmp_path, False)
