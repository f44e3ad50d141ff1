"""A small plain convnet with batch norm, for images of 8x8 and up."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from kdbench.api import Model, Shape


class ConvNet(nn.Module):
    """(B, C, H, W) -> (B, outputs): a stem and two stages of 3x3 convolutions.

    The second stage has twice the channels and half the resolution.
    """

    def __init__(self, input_shape: Shape, outputs: int, width: int):
        super().__init__()
        if len(input_shape) != 3:
            raise ValueError(f"a convnet needs images, not inputs of {input_shape}")
        self.stem = _block(input_shape[0], width, 1)  # (B, w, H, W)
        self.stage1 = _block(width, width, 1)  # (B, w, H, W)
        self.stage2 = _block(width, 2 * width, 2)  # (B, 2w, H/2, W/2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(2 * width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.stage2(self.stage1(self.stem(inputs)))
        logits: Tensor = self.classifier(self.pool(maps).flatten(1))
        return logits


def _block(channels: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


def convnet(width: int) -> Model:
    """The model `convnet_<width>`."""
    return Model(
        name=f"convnet_{width}",
        summary=f"three 3x3 convolutions of {width}, {width} and {2 * width} channels",
        build=partial(ConvNet, width=width),
        taps={
            "stem": "stem",
            "preact1": "stage1.1",
            "stage1": "stage1",
            "preact2": "stage2.1",
            "stage2": "stage2",
            "maps": "pool:input",
            "pooled": "classifier:input",
        },
        classifier="classifier",
    )
