"""res8: a residual net for keywords. Tang & Lin 2018, arXiv:1710.10361, table 1.

A 3x3 convolution, average pooling, and six 3x3 convolutions of the same width in three
residual blocks. Batch norm stands before each ReLU (He et al. 2016) and not after it,
so that it can be folded into the convolution.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Model
from kdbench_audio.shapes import refuse_other_shapes

POOL = (4, 4)
"""Bands x frames. The paper's 3 x 4 was for 10 ms hops; ours are 16 ms, and as many
bands and frames are left as the depthwise-separable students have."""


class Res8(nn.Module):
    """(B, 1, mels, frames) -> (B, outputs). Raises ValueError for other shapes."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, width: int):
        super().__init__()
        refuse_other_shapes("res8", input_shape)
        self.stem = nn.Sequential(  # (B, w, mels / 4, frames / 2)
            *_conv(1, width), nn.ReLU(), nn.AvgPool2d(POOL, ceil_mode=True)
        )
        self.stage1 = Residual(width)
        self.stage2 = Residual(width)
        self.stage3 = Residual(width)
        self.classifier = nn.Linear(width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.stage3(self.stage2(self.stage1(self.stem(inputs))))
        logits: Tensor = self.classifier(maps.mean((2, 3)))
        return logits


class Residual(nn.Module):
    """Two 3x3 convolutions around an identity: (B, w, H, W) -> the same shape."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(*_conv(width, width), nn.ReLU(), *_conv(width, width))

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(maps + self.body(maps))


def _conv(channels: int, width: int) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return (
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
    )


def _res8(name: str, width: int) -> Model:
    return Model(
        name=name,
        summary=f"residual keyword net, seven 3x3 convolutions of {width} channels",
        build=partial(Res8, width=width),
        taps={
            "stem": "stem",
            "stage1": "stage1",
            "stage2": "stage2",
            "stage3": "stage3",
            "pooled": "classifier:input",
        },
        classifier="classifier",
    )


RES8 = _res8("kws_res8", 45)
RES8_NARROW = _res8("kws_res8_narrow", 19)
