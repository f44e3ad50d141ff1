"""VGG with batch norm. Simonyan & Zisserman 2015, arXiv:1409.1556, table 1, columns A,
B, D and E; batch norm from Ioffe & Szegedy 2015, arXiv:1502.03167.

As the distillation tables for CIFAR-100 have it: the three dense layers are one
classifier on pooled features; vgg8 has one convolution in each of the five blocks; max
pooling stands between blocks, before the last one only from 64x64 pixels on. The first
block is the stem, the other four are the stages. Convolutions have biases. They start
from N(0, 2 / fan-out), the classifier from N(0, 0.01 ** 2), and biases from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from kdbench.api import Model, Shape
from kdbench.models.staged import (
    Staged,
    he_fan_out,
    image_channels,
    small_classifier,
    staged_taps,
)

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Depth -> convolutions in each block."""
NARROW = (16, 32, 64, 128)
"""A quarter of the first four widths."""
LARGE = 64
"""Pixels on a side from which the last block, too, comes after a max pooling."""


def build_vgg(
    input_shape: Shape, outputs: int, depth: int, widths: Sequence[int] = WIDTHS
) -> Staged:
    """A VGG for images of 8x8 and up, on which the first three poolings leave a pixel.

    `widths` are the channels of each block: of the first ones, where there are fewer.

    Raises ValueError where the inputs are no such images.
    """
    channels = image_channels("a VGG", input_shape, smallest=8)
    large = min(input_shape[1:]) >= LARGE
    blocks = []
    for k, (width, count) in enumerate(zip(widths, CONVOLUTIONS[depth], strict=False)):
        pooled = k in (1, 2, 3) or (k == 4 and large)
        layers: list[nn.Module] = [nn.MaxPool2d(2) if pooled else nn.Identity()]
        for _ in range(count):
            layers += [
                nn.Conv2d(channels, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        blocks.append(nn.Sequential(*layers))
    model = Staged(blocks[0], blocks[1:], channels, outputs)
    he_fan_out(model)
    small_classifier(model)
    return model


def vgg(depth: int, name: str = "", widths: Sequence[int] = WIDTHS) -> Model:
    """The model `vgg<depth>`, of 8, 11, 13, 16 or 19 layers."""
    counts = CONVOLUTIONS[depth][: len(widths)]
    # a pooling or nothing, then three layers for each convolution
    ends = [f"stages.{k}.{3 * n}:input" for k, n in enumerate(counts[1:])]
    return Model(
        name=name or f"vgg{depth}",
        summary=f"VGG with batch norm and one dense layer, {sum(counts)} convolutions, "
        "channels " + "-".join(map(str, widths)),
        build=partial(build_vgg, depth=depth, widths=tuple(widths)),
        taps=staged_taps(ends),
        classifier="classifier",
    )


VGGS = [vgg(depth) for depth in CONVOLUTIONS]
"""The VGGs of the distillation tables for CIFAR-100."""
VGG7_NARROW = vgg(8, "vgg7_narrow", NARROW)
"""vgg8 without its last block and a quarter as wide, for a CPU; a ResNet has as many
stages."""
