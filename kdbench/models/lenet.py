"""LeNet-5 for 28x28 images. LeCun et al. 1998, "Gradient-based learning applied to
document recognition", figure 2, with ReLU and max pooling as it is built today.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.api import Model, Shape


class LeNet(nn.Module):
    """(B, C, 28, 28) -> (B, outputs): two 5x5 convolutions and three dense layers."""

    def __init__(self, input_shape: Shape, outputs: int, widths: tuple[int, ...]):
        super().__init__()
        if len(input_shape) != 3 or input_shape[1:] != (28, 28):
            raise ValueError(f"LeNet needs 28x28 images, not inputs of {input_shape}")
        first, second, third, fourth = widths
        self.stage1 = _block(input_shape[0], first, padding=2)  # (B, w1, 28, 28)
        self.stage2 = _block(first, second, padding=0)  # (B, w2, 10, 10)
        self.dense = nn.Sequential(
            nn.Linear(25 * second, third),
            nn.ReLU(),
            nn.Linear(third, fourth),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(fourth, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = F.max_pool2d(self.stage1(inputs), 2)
        maps = F.max_pool2d(self.stage2(maps), 2)  # (B, w2, 5, 5)
        logits: Tensor = self.classifier(self.dense(maps.flatten(1)))
        return logits


def _block(channels: int, width: int, padding: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 5, padding=padding), nn.ReLU())


def lenet(name: str, *widths: int) -> Model:
    """A LeNet with these numbers of channels (two) and dense units (two)."""
    words = ", ".join(map(str, widths))
    return Model(
        name=name,
        summary=f"LeNet-5 for 28x28 images, widths {words}",
        build=partial(LeNet, widths=widths),
        taps={"stage1": "stage1", "stage2": "stage2", "pooled": "classifier:input"},
        classifier="classifier",
    )
