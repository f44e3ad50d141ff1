"""ShuffleNets for small images. V1 with 3 groups: Zhang et al. 2018, arXiv:1707.01083;
V2 at width 1: Ma et al. 2018, arXiv:1807.11164, table 5.

As the distillation tables for CIFAR-100 have them: the stem is a 1x1 convolution that
keeps the size, without pooling; V1 has a ReLU after the depthwise convolution, too, and
at stride 2 the inner channels are a quarter of the new ones. Weights start as torch has
them.

A block ends in a ReLU of all its channels. In V2 that is the paper's block: the half
that is passed on is never negative, and shuffle and ReLU may come in either order.
So half the channels of V2's `preactK` were activated before, and the last batch norm of
a stage covers the other half only.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from kdbench.api import Model, Shape
from kdbench.models.staged import Staged, conv_bn, image_channels, staged_taps

STEM = 24
GROUPS = 3
V1 = ((240, 4), (480, 8), (960, 4))
"""Channels and blocks of each stage (table 1, g = 3)."""
V2 = ((116, 4), (232, 8), (464, 4))
V2_HEAD = 1024


class Shuffle(nn.Module):
    """Channel i of group j of (B, C, H, W) becomes channel j of group i."""

    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, maps: Tensor) -> Tensor:
        b, c, h, w = maps.shape
        grouped = maps.reshape(b, self.groups, c // self.groups, h, w)
        return grouped.transpose(1, 2).reshape(b, c, h, w)


class GroupedUnit(nn.Module):
    """V1's block (figure 2): (B, C, H, W) -> (B, outputs, H / stride, W / stride).

    At stride 1 it adds its input; at stride 2 it appends it, averaged, as channels.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        new = outputs if stride == 1 else outputs - inputs
        inner = new // 4
        groups = 1 if inputs == STEM else GROUPS  # too few channels for groups
        self.body = nn.Sequential(
            *conv_bn(inputs, inner, 1, groups=groups),
            nn.ReLU(),
            Shuffle(groups),
            *conv_bn(inner, inner, 3, stride, groups=inner),
            nn.ReLU(),
            *conv_bn(inner, new, 1, groups=GROUPS),
        )
        self.pool = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else None
        self.relu = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        new = self.body(inputs)
        if self.pool is None:
            joined = new + inputs
        else:
            joined = torch.cat([new, self.pool(inputs)], dim=1)
        maps: Tensor = self.relu(joined)
        return maps


class SplitUnit(nn.Module):
    """V2's block (figure 3 c, d): (B, C, H, W) -> (B, outputs, H / stride, W / stride).

    At stride 1 half of the channels are passed on as they are; at stride 2 both halves
    are made from all channels.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        half = outputs // 2
        kept: list[nn.Module] = []
        if stride > 1:
            kept = [
                *conv_bn(inputs, inputs, 3, stride, groups=inputs),
                *conv_bn(inputs, half, 1),
            ]
        self.kept = nn.Sequential(*kept)
        self.body = nn.Sequential(
            *conv_bn(inputs if stride > 1 else half, half, 1),
            nn.ReLU(),
            *conv_bn(half, half, 3, stride, groups=half),
            *conv_bn(half, half, 1),
        )
        self.splits = stride == 1
        self.shuffle = Shuffle(2)
        self.relu = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        first, second = inputs.chunk(2, dim=1) if self.splits else (inputs, inputs)
        joined = torch.cat([self.kept(first), self.body(second)], dim=1)
        maps: Tensor = self.relu(self.shuffle(joined))
        return maps


def build_shufflenet(input_shape: Shape, outputs: int, version: int) -> Staged:
    """ShuffleNet V1 or V2 for small images; each stage halves the resolution.

    Raises ValueError where the inputs are no images.
    """
    channels = image_channels("a ShuffleNet", input_shape)
    stem = nn.Sequential(*conv_bn(channels, STEM, 1), nn.ReLU())
    plan = V1 if version == 1 else V2
    unit = GroupedUnit if version == 1 else SplitUnit
    stages, inputs = [], STEM
    for width, blocks in plan:
        rest = [unit(width, width, 1) for _ in range(blocks - 1)]
        stages.append(nn.Sequential(unit(inputs, width, 2), *rest))
        inputs = width
    if version == 1:
        return Staged(stem, stages, inputs, outputs)
    head = nn.Sequential(*conv_bn(inputs, V2_HEAD, 1), nn.ReLU())
    return Staged(stem, stages, V2_HEAD, outputs, head)


def shufflenet(version: int) -> Model:
    """The model `shufflenetv<version>`."""
    plan = V1 if version == 1 else V2
    lasts = [blocks - 1 for _, blocks in plan]
    return Model(
        name=f"shufflenetv{version}",
        summary=f"ShuffleNet V{version} for small images, channels "
        + "-".join(str(width) for width, _ in plan),
        build=partial(build_shufflenet, version=version),
        taps=staged_taps([f"stages.{k}.{n}.relu:input" for k, n in enumerate(lasts)]),
        classifier="classifier",
    )


SHUFFLENETS = [shufflenet(1), shufflenet(2)]
"""V1 and V2 for CIFAR."""
