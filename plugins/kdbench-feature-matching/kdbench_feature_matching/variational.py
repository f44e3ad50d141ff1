"""Normal distributions of the teacher's stages, given the student's, to be learned."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Outputs, Tapped
from kdbench_feature_matching.geometry import alike
from kdbench_feature_matching.matching import Shape, stage_pairs, stage_shapes

EPS = 1e-5
"""The least variance; the field's setting."""


class Guess(nn.Module):
    """q(t | s) of one stage: mean (B, C, ...) and variance (C,) from the student's."""

    def __init__(self, student: Shape, teacher: Shape, variance: float) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int) -> nn.Module:
            if len(student) == 1:
                return nn.Linear(inputs, outputs, bias=False)
            return nn.Conv2d(inputs, outputs, kernel_size=1, bias=False)

        own, wide = student[0], teacher[0]
        layers = layer(own, wide), nn.ReLU(True), layer(wide, wide), nn.ReLU(True)
        self.mean = nn.Sequential(*layers, layer(wide, wide))
        start = variance - EPS + math.log(-math.expm1(EPS - variance))
        self.spread = nn.Parameter(torch.full((wide,), start))

    def forward(self, student: Tensor) -> tuple[Tensor, Tensor]:
        mean: Tensor = self.mean(student.to(self.spread.dtype))
        return mean, F.softplus(self.spread) + EPS


class Guesses(nn.ModuleList):
    """All matched stages of the teacher (B, C, ...), each with its q(t | s)."""

    def __init__(self, student: Tapped, teacher: Tapped, variance: float) -> None:
        shapes = stage_shapes(student, teacher)
        super().__init__(Guess(s, t, variance) for s, t in shapes)

    def forward(
        self, student: Outputs, teacher: Outputs
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        pairs = [alike(s, t) for s, t in stage_pairs(student, teacher)]
        both = zip(self, pairs, strict=True)
        return [(t, *guess(s)) for guess, (s, t) in both]
