"""MobileNets. V1 for ImageNet: Howard et al. 2017, arXiv:1704.04861, table 1. V2 for
CIFAR, half as wide: Sandler et al. 2018, arXiv:1801.04381, table 2.

`mobilenetv2` is the one of the distillation tables for CIFAR-100 (from Jin et al. 2019,
arXiv:1904.09149): ReLU for ReLU6; a block of expansion 1 has its first 1x1 convolution,
too; the second group of blocks keeps the size, and 32x32 images end as 2x2. Its blocks
end in a linear layer, which no ReLU follows: `preactK` is `stageK`. Convolutions start
from N(0, 2 / fan-out), the classifier from N(0, 0.01 ** 2).

`mobilenetv1` is ImageNet's student, 4.2 million parameters and 569 million
multiply-accumulates at 224x224 and 1000 classes. It starts as torch has it.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from kdbench.api import Model, Shape
from kdbench.models.staged import (
    Staged,
    conv_bn,
    he_fan_out,
    image_channels,
    small_classifier,
    staged_taps,
)

SEPARABLE = (
    ((64, 1), (128, 2), (128, 1)),
    ((256, 2), (256, 1)),
    ((512, 2), *[(512, 1)] * 5),
    ((1024, 2), (1024, 1)),
)
"""Stages of V1, each a list of separable convolutions: (channels, stride)."""

INVERTED = (
    ((1, 16, 1, 1), (6, 24, 2, 1)),
    ((6, 32, 3, 2),),
    ((6, 64, 4, 2), (6, 96, 3, 1)),
    ((6, 160, 3, 2), (6, 320, 1, 1)),
)
"""Stages of V2, each a list of groups: (expansion, channels, blocks, stride)."""
LAST = 1280
"""Channels of V2's head, at any width below 1."""


class InvertedResidual(nn.Module):
    """(B, C, H, W) -> (B, outputs, H / stride, W / stride): expand, depthwise, project.

    The projection is linear; a block that changes no shape adds its input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
        super().__init__()
        inner = expansion * inputs
        self.adds = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            *conv_bn(inputs, inner, 1),
            nn.ReLU(),
            *conv_bn(inner, inner, 3, stride, groups=inner),
            nn.ReLU(),
            *conv_bn(inner, outputs, 1),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        maps: Tensor = self.body(inputs)
        return inputs + maps if self.adds else maps


def build_mobilenetv2(input_shape: Shape, outputs: int, width: float) -> Staged:
    """MobileNetV2 for small images, with `width` times the paper's channels.

    Raises ValueError where the inputs are no images.
    """
    channels = image_channels("a MobileNetV2", input_shape)
    inputs = int(32 * width)
    stem = nn.Sequential(*conv_bn(channels, inputs, 3, stride=2), nn.ReLU())
    stages = []
    for groups in INVERTED:
        blocks = []
        for expansion, paper_width, count, stride in groups:
            for step in (stride, *[1] * (count - 1)):
                wide = int(paper_width * width)
                blocks.append(InvertedResidual(inputs, wide, step, expansion))
                inputs = wide
        stages.append(nn.Sequential(*blocks))
    head = nn.Sequential(*conv_bn(inputs, LAST, 1), nn.ReLU())
    model = Staged(stem, stages, LAST, outputs, head)
    he_fan_out(model)
    small_classifier(model)
    return model


def separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A depthwise and a 1x1 convolution, each with batch norm and ReLU (figure 3)."""
    return nn.Sequential(
        *conv_bn(inputs, inputs, 3, stride, groups=inputs),
        nn.ReLU(),
        *conv_bn(inputs, outputs, 1),
        nn.ReLU(),
    )


def build_mobilenetv1(input_shape: Shape, outputs: int) -> Staged:
    """MobileNetV1 at full width. Raises ValueError where the inputs are no images."""
    channels = image_channels("a MobileNetV1", input_shape)
    stem = nn.Sequential(*conv_bn(channels, 32, 3, stride=2), nn.ReLU())
    stages, inputs = [], 32
    for layers in SEPARABLE:
        widths = [inputs, *(width for width, _ in layers)]
        steps = zip(pairwise(widths), layers, strict=True)
        stages.append(nn.Sequential(*(separable(i, o, s) for (i, o), (_, s) in steps)))
        inputs = widths[-1]
    return Staged(stem, stages, inputs, outputs)


def mobilenetv2() -> Model:
    """The model `mobilenetv2`."""
    return Model(
        name="mobilenetv2",
        summary="MobileNetV2 for small images, half as wide",
        build=partial(build_mobilenetv2, width=0.5),
        taps=staged_taps([f"stages.{k}" for k in range(len(INVERTED))]),
        classifier="classifier",
    )


def mobilenetv1() -> Model:
    """The model `mobilenetv1`."""
    lasts = [len(layers) - 1 for layers in SEPARABLE]
    return Model(
        name="mobilenetv1",
        summary="MobileNetV1 for ImageNet, 4.2 million parameters",
        build=build_mobilenetv1,
        taps=staged_taps([f"stages.{k}.{n}.5:input" for k, n in enumerate(lasts)]),
        classifier="classifier",
    )


MOBILENETS = [mobilenetv2(), mobilenetv1()]
"""V2 for CIFAR and V1 for ImageNet."""
