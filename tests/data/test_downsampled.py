"""Image sets at half their resolution."""

from __future__ import annotations

import pytest
import torch

from kdbench.api import Data, Dataset, Split
from kdbench.data import downsampled
from kdbench.data.checks import loaded
from kdbench.data.downsampled import CIFAR100_16X16, half, halved
from kdbench.tasks import Task


def test_each_pixel_is_the_mean_of_four(monkeypatch):
    """Halves to even; every image, also where they are taken in several parts."""
    monkeypatch.setattr(downsampled, "CHUNK", 3)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (7, 3, 8, 6), generator=generator, dtype=torch.uint8)
    images[6, :, :2, :2] = torch.tensor([[0, 1], [0, 1]])  # 0.5 -> 0
    images[6, :, :2, 2:4] = torch.tensor([[1, 2], [1, 2]])  # 1.5 -> 2
    four = [images[:, :, a::2, b::2].double() for a in (0, 1) for b in (0, 1)]
    expected = torch.stack(four).mean(0).round()
    small = halved(images)
    assert small.dtype == torch.uint8
    assert torch.equal(small.double(), expected)
    assert small[6, 0, 0, :2].tolist() == [0, 2]


def test_what_is_not_the_images_stays():
    split = Split(
        inputs=torch.zeros(2, 3, 4, 4, dtype=torch.uint8), targets=torch.ones(2)
    )
    whole = Dataset(
        name="whole",
        summary="",
        source="somewhere",
        task=Task(outputs=2),
        input_shape=(3, 4, 4),
        load=lambda data_dir, download: Data(
            train=split, test=split, mean=(1.0,) * 3, std=(2.0,) * 3, notes=("a note",)
        ),
    )
    small = half(whole, "small", "less", (0.1, 0.2, 0.3))
    assert (small.name, small.input_shape) == ("small", (3, 2, 2))
    assert small.source == "somewhere; means of 2x2 pixels"
    data = small.load(None, False)
    assert data.test.inputs.shape == (2, 3, 2, 2)
    assert data.test.targets is split.targets
    assert (data.mean, data.notes) == ((1.0,) * 3, ("a note",))
    assert data.std == pytest.approx((25.5, 51.0, 76.5))


@pytest.mark.slow
@pytest.mark.data
def test_the_real_ones_have_the_stated_statistics(data_dir):
    data = loaded(CIFAR100_16X16, data_dir, False)
    pixels = data.train.inputs.double()
    assert pixels.shape == (50_000, 3, 16, 16)
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx(data.mean, abs=0.1)
    std = pixels.std((0, 2, 3), correction=0).tolist()
    assert std == pytest.approx(data.std, abs=0.02)
