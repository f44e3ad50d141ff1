"""Image sets at half their resolution: for machines on which the whole one takes days.

Means of 2x2 pixels, the box filter with which Chrabaszcz, Loshchilov & Hutter 2017
(arXiv:1707.08819) make ImageNet smaller; there the settings that are good at one
resolution are good at another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor
from torch.nn.functional import avg_pool2d

from kdbench.api import Data, Dataset
from kdbench.data.known import IMAGE_SETS

CHUNK = 4096
"""Images that are halved at a time, in float32."""


def halved(images: Tensor) -> Tensor:
    """(N, C, H, W) uint8 -> (N, C, H/2, W/2) uint8; halves are rounded to even."""
    count, channels, height, width = images.shape
    small = images.new_empty(count, channels, height // 2, width // 2)
    for start in range(0, count, CHUNK):
        part = images[start : start + CHUNK].float()
        small[start : start + CHUNK] = avg_pool2d(part, 2).round()
    return small


def load(
    data_dir: Path | None,
    download: bool,
    *,
    whole: Callable[[Path | None, bool], Data],
    std: tuple[float, ...],
) -> Data:
    """The whole set's images, halved.

    Means stay what they are; `std`, on the scale 0 to 1, is that of the smaller images.
    """
    data = whole(data_dir, download)
    return dataclasses.replace(
        data,
        train=dataclasses.replace(data.train, inputs=halved(data.train.inputs)),
        test=dataclasses.replace(data.test, inputs=halved(data.test.inputs)),
        std=tuple(255 * value for value in std),
    )


def half(dataset: Dataset, name: str, summary: str, std: tuple[float, ...]) -> Dataset:
    """The dataset at half its resolution."""
    channels, height, width = dataset.input_shape
    return dataclasses.replace(
        dataset,
        name=name,
        summary=summary,
        source=f"{dataset.source}; means of 2x2 pixels",
        input_shape=(channels, height // 2, width // 2),
        load=partial(load, whole=dataset.load, std=std),
    )


CIFAR100_16X16 = half(
    next(known for known in IMAGE_SETS if known.name == "cifar100"),
    "cifar100_16x16",
    "CIFAR-100 at half resolution, 16x16 RGB, 100 classes",
    (0.2594, 0.2484, 0.2688),
)
