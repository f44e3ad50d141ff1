"""DS-CNN: depthwise-separable convolutions. Zhang et al. 2017, arXiv:1711.07128.

One strided convolution and four depthwise-separable ones of the same width, as in the
paper's DS-CNN-S (width 64), in three stages of 1, 1 and 2 of them.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from kdbench import Model
from kdbench_audio.shapes import refuse_other_shapes

KERNEL, STRIDE = (8, 8), (4, 4)
"""Of the stem, bands x frames. The paper's 4 x 10 with stride 2 x 2 was for 10 cepstral
coefficients and 20 ms hops."""


class DSCNN(nn.Module):
    """(B, 1, mels, frames) -> (B, outputs). Raises ValueError for other shapes."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, width: int):
        super().__init__()
        refuse_other_shapes("ds_cnn", input_shape)
        self.stem = nn.Sequential(  # (B, w, mels / 4, frames / 2)
            nn.Conv2d(1, width, KERNEL, STRIDE, padding=(2, 4), bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.stage1 = _separable(width)
        self.stage2 = _separable(width)
        self.stage3 = nn.Sequential(_separable(width), _separable(width))
        self.classifier = nn.Linear(width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.stage3(self.stage2(self.stage1(self.stem(inputs))))
        logits: Tensor = self.classifier(maps.mean((2, 3)))
        return logits


def _separable(width: int) -> nn.Sequential:
    """Depthwise 3x3, then pointwise: (B, w, H, W) -> the same shape."""
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


def ds_cnn(width: int) -> Model:
    """The model `ds_cnn_<width>`."""
    return Model(
        name=f"ds_cnn_{width}",
        summary=f"keyword net, four depthwise-separable convolutions of {width}",
        build=partial(DSCNN, width=width),
        taps={
            "stem": "stem",
            "stage1": "stage1",
            "stage2": "stage2",
            "stage3": "stage3",
            "pooled": "classifier:input",
        },
        classifier="classifier",
    )
