"""The real files: counts, statistics and known flaws."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch

from kdbench.api import UserError
from kdbench.data import known
from kdbench.data.checks import loaded

BY_NAME = {dataset.name: dataset for dataset in known.IMAGE_SETS}


@pytest.mark.slow
@pytest.mark.data
def test_cifar100_is_the_known_one(data_dir):
    """Counts and statistics of the real files; coarse labels from the same cache."""
    fine = loaded(BY_NAME["cifar100"], data_dir, False)
    coarse = loaded(BY_NAME["cifar100_coarse"], data_dir, False)
    assert torch.bincount(fine.train.targets).tolist() == [500] * 100
    assert torch.bincount(fine.test.targets).tolist() == [100] * 100
    assert torch.bincount(coarse.train.targets).tolist() == [2500] * 20
    assert torch.bincount(coarse.test.targets).tolist() == [500] * 20
    channels = [channel.double() / 255 for channel in fine.train.inputs.unbind(1)]
    mean = [channel.mean().item() for channel in channels]
    std = [channel.std(correction=0).item() for channel in channels]
    assert [round(m, 4) for m in mean] == [0.5071, 0.4865, 0.4409]
    assert [round(s, 4) for s in std] == [0.2673, 0.2564, 0.2762]
    assert fine.mean == pytest.approx([255 * m for m in mean], abs=0.1)
    assert fine.std == pytest.approx([255 * s for s in std], abs=0.1)
    assert torch.equal(fine.train.inputs[:100], coarse.train.inputs[:100])
    assert fine.notes[0].startswith("10 of 10,000 test images are in the training set")


@pytest.mark.slow
@pytest.mark.data
def test_cifar100_as_pickles_is_the_same(data_dir, tmp_path):
    """The first real images, written as torchvision's files."""
    real = loaded(BY_NAME["cifar100"], data_dir, False)
    coarse = loaded(BY_NAME["cifar100_coarse"], data_dir, False)
    (tmp_path / "cifar-100-python").mkdir()
    for name in ("train", "test"):
        split, rough = getattr(real, name), getattr(coarse, name)
        batch = {
            "data": split.inputs[:50].reshape(50, -1).numpy(),
            "fine_labels": split.targets[:50].tolist(),
            "coarse_labels": rough.targets[:50].tolist(),
        }
        path = tmp_path / "cifar-100-python" / name
        path.write_bytes(pickle.dumps(batch))

    small = dataclasses.replace(known.CIFAR100, items=(50, 50))
    data = known.load(tmp_path, False, known=small)
    assert torch.equal(data.train.inputs, real.train.inputs[:50])
    assert torch.equal(data.test.targets, real.test.targets[:50])
    small = dataclasses.replace(known.CIFAR100_COARSE, items=(50, 50))
    data = known.load(tmp_path, False, known=small)
    assert torch.equal(data.test.targets, coarse.test.targets[:50])


@pytest.mark.data
def test_mnist_is_the_known_one(data_dir):
    data = loaded(BY_NAME["mnist"], data_dir, False)
    assert data.train.inputs.shape == (60_000, 1, 28, 28)
    assert data.test.inputs.shape == (10_000, 1, 28, 28)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(data.train.targets).tolist() == counts
    pixels = data.train.inputs.double()
    assert pixels.mean().item() == pytest.approx(data.mean[0], abs=0.02)
    assert pixels.std().item() == pytest.approx(data.std[0], abs=0.02)


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
    with pytest.raises(UserError, match="train-images-idx3-ubyte has 10,000 bytes"):
        loaded(BY_NAME["mnist"], tmp_path, False)
