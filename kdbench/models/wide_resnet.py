"""Wide residual networks. Zagoruyko & Komodakis 2016, arXiv:1605.07146.

`wrn_<depth>_<widening>`, without dropout. The blocks are pre-activation ones: batch
norm and ReLU come before each convolution, and stages hand on plain sums. As in the
distillation tables for CIFAR-100 (Tian et al. 2020, arXiv:1910.10699), `stageK` is that
sum; `preactK` is what the next batch norm makes of it, which belongs to the first block
of stage K + 1 or to the head; and `stem` is the first convolution alone.
Convolutions start from N(0, 2 / fan-out), the classifier's bias from 0.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from kdbench.api import Model, Shape
from kdbench.models.staged import Staged, conv_bn, he_fan_out, image_channels


class PreActivation(nn.Module):
    """(B, C, H, W) -> (B, outputs, H / stride, W / stride): body(a) + shortcut(x).

    a = relu(norm(x)). Where the number of channels changes, the shortcut is a 1x1
    convolution of a.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        self.body = nn.Sequential(
            *conv_bn(inputs, outputs, 3, stride),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            if inputs != outputs
            else None
        )

    def forward(self, inputs: Tensor) -> Tensor:
        active = self.relu(self.norm(inputs))
        kept = inputs if self.shortcut is None else self.shortcut(active)
        maps: Tensor = self.body(active) + kept
        return maps


def build_wrn(input_shape: Shape, outputs: int, blocks: int, widening: int) -> Staged:
    """A WRN of three stages of `blocks` blocks; the second and third halve the size.

    Raises ValueError where the inputs are no images.
    """
    channels = image_channels("a WRN", input_shape)
    stages, inputs = [], 16
    for k, width in enumerate((16 * widening, 32 * widening, 64 * widening)):
        first = PreActivation(inputs, width, 1 if k == 0 else 2)
        rest = [PreActivation(width, width, 1) for _ in range(blocks - 1)]
        stages.append(nn.Sequential(first, *rest))
        inputs = width
    stem = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
    head = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
    model = Staged(stem, stages, inputs, outputs, head)
    he_fan_out(model)
    nn.init.zeros_(model.classifier.bias)
    return model


def wrn(depth: int, widening: int) -> Model:
    """The model `wrn_<depth>_<widening>`.

    Raises ValueError where no whole number of blocks gives that depth.
    """
    blocks, odd = divmod(depth - 4, 6)
    if odd or blocks < 1:
        raise ValueError(f"a WRN has 6n + 4 layers (10, 16, ...), not {depth}")
    return Model(
        name=f"wrn_{depth}_{widening}",
        summary=f"wide ResNet of {depth} layers, {widening} times as wide",
        build=partial(build_wrn, blocks=blocks, widening=widening),
        taps={
            "stem": "stem",
            "stage1": "stages.0",
            "preact1": "stages.1.0.norm",
            "stage2": "stages.1",
            "preact2": "stages.2.0.norm",
            "stage3": "stages.2",
            "preact3": "head.0",
            "maps": "pool:input",
            "pooled": "classifier:input",
        },
        classifier="classifier",
    )


WIDE_RESNETS = [wrn(16, 1), wrn(16, 2), wrn(40, 1), wrn(40, 2)]
"""The WRNs of the distillation tables for CIFAR-100."""
