"""Residual networks for small images. He et al. 2016, "Deep Residual Learning for Image
Recognition", arXiv:1512.03385, section 4.2; for the blocks of resnet50, section 4.1.

As the distillation tables have them: where the shape changes, the shortcut is a 1x1
convolution with batch norm (option B; the paper's CIFAR models have option A, without
parameters); resnet8x4 and resnet32x4 have a stem of 32 channels and four times the
channels after it; resnet50 has the 3x3 stem without pooling that 32x32 images need.
Convolutions start from N(0, 2 / fan-out), the classifier as torch has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from kdbench.api import Model, Shape
from kdbench.models.staged import (
    Staged,
    conv_bn,
    he_fan_out,
    image_channels,
    staged_taps,
)

THIN = (16, 16, 32, 64)
WIDE = (32, 64, 128, 256)
RESNET50 = (64, 64, 128, 256, 512)
EXPANSION = 4
"""How many times its inner channels a bottleneck hands on (table 1)."""


class Residual(nn.Module):
    """(B, C, H, W) -> (B, outputs, H / stride, W / stride).

    relu(body(x) + shortcut(x)); what `relu` is given is the block's pre-activation.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, body: list[nn.Module]):
        super().__init__()
        same = stride == 1 and inputs == outputs
        shortcut = [] if same else conv_bn(inputs, outputs, 1, stride)
        self.shortcut = nn.Sequential(*shortcut)
        self.body = nn.Sequential(*body)
        self.relu = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        maps: Tensor = self.relu(self.body(inputs) + self.shortcut(inputs))
        return maps


def basic(inputs: int, width: int, stride: int) -> Residual:
    """Two 3x3 convolutions (figure 5, left)."""
    body = [*conv_bn(inputs, width, 3, stride), nn.ReLU(), *conv_bn(width, width, 3)]
    return Residual(inputs, width, stride, body)


def bottleneck(inputs: int, width: int, stride: int) -> Residual:
    """1x1, 3x3 with the stride, and 1x1 to `EXPANSION` times the width (figure 5)."""
    outputs = EXPANSION * width
    body = [
        *conv_bn(inputs, width, 1),
        nn.ReLU(),
        *conv_bn(width, width, 3, stride),
        nn.ReLU(),
        *conv_bn(width, outputs, 1),
    ]
    return Residual(inputs, outputs, stride, body)


def build_resnet(
    input_shape: Shape,
    outputs: int,
    widths: Sequence[int],
    blocks: Sequence[int],
    bottlenecks: bool = False,
) -> Staged:
    """A ResNet for small images; `widths` are those of the stem and of each stage.

    Each stage but the first halves the resolution. Raises ValueError where the inputs
    are no images.
    """
    channels = image_channels("a ResNet", input_shape)
    make, factor = (bottleneck, EXPANSION) if bottlenecks else (basic, 1)
    stem = nn.Sequential(*conv_bn(channels, widths[0], 3), nn.ReLU())
    stages, inputs = [], widths[0]
    for k, (width, count) in enumerate(zip(widths[1:], blocks, strict=True)):
        stride = 1 if k == 0 else 2
        first = make(inputs, width, stride)
        inputs = factor * width
        rest = [make(inputs, width, 1) for _ in range(count - 1)]
        stages.append(nn.Sequential(first, *rest))
    model = Staged(stem, stages, inputs, outputs)
    he_fan_out(model)
    return model


def resnet(
    name: str, widths: Sequence[int], blocks: Sequence[int], bottlenecks: bool = False
) -> Model:
    """A ResNet of this many blocks in each stage, as a model called `name`."""
    kind = "bottleneck" if bottlenecks else "basic"
    counts = "-".join(map(str, blocks))
    ends = [f"stages.{k}.{n - 1}.relu:input" for k, n in enumerate(blocks)]
    return Model(
        name=name,
        summary=f"ResNet for small images, {counts} {kind} blocks, channels "
        + "-".join(map(str, widths)),
        build=partial(
            build_resnet,
            widths=tuple(widths),
            blocks=tuple(blocks),
            bottlenecks=bottlenecks,
        ),
        taps=staged_taps(ends),
        classifier="classifier",
    )


def cifar_resnet(depth: int, name: str = "", widths: Sequence[int] = THIN) -> Model:
    """The model `resnet<depth>`: three stages of (depth - 2) / 6 basic blocks.

    Raises ValueError where no whole number of blocks gives that depth.
    """
    blocks, odd = divmod(depth - 2, 6)
    if odd or blocks < 1:
        raise ValueError(f"a CIFAR ResNet has 6n + 2 layers (8, 14, ...), not {depth}")
    return resnet(name or f"resnet{depth}", widths, (blocks,) * 3)


RESNETS = [
    *map(cifar_resnet, (8, 14, 20, 32, 44, 56, 110)),
    cifar_resnet(8, "resnet8x4", WIDE),
    cifar_resnet(32, "resnet32x4", WIDE),
    resnet("resnet50", RESNET50, (3, 4, 6, 3), bottlenecks=True),
]
"""The ResNets of the distillation tables for CIFAR-100."""
