"""Masked generative distillation. Yang et al. 2022, arXiv:2205.01529, section 3.

loss = ce_weight * CE + mgd_weight * 1/B sum_{b,chw} [t - G(M * align(s))]^2

s and t are the last stages; align is a 1x1 convolution where their channels differ,
else nothing; G is a 3x3 convolution, ReLU and another one, all as wide as the teacher;
M is 0 with probability mask_ratio, else 1, with no rescaling of what is left.
The paper masks positions; for classification the authors' code draws one M for each
item and channel, and so do we. Their weight is for ImageNet, with 512 x 7 x 7 elements
in t: the sum is not divided by their number. Where sizes differ, the larger map is
average-pooled; vectors are maps of 1x1, and then all convolutions are.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import KINDS, Batch, Strategy, Tapped, at_least_float32, label_loss
from kdbench_feature_matching.geometry import shrink
from kdbench_feature_matching.maps import as_map
from kdbench_feature_matching.matching import (
    Shape,
    stage_features,
    why_no_like_stages,
)


def generation_loss(guess: Tensor, teacher: Tensor) -> Tensor:
    """Squared error of (B, C, H, W) summed over the maps, mean of items: a scalar."""
    return F.mse_loss(guess, teacher.detach(), reduction="sum") / len(guess)


def last_stage(model: Tapped) -> Tapped:
    """The model as if its last stage were its only feature."""
    return replace(model, shapes=dict(list(model.stages.items())[-1:]))


class Generation(nn.Module):
    """Student maps and which channels (B, C) to keep -> a guess of the teacher's."""

    def __init__(self, student: Shape, teacher: Shape) -> None:
        super().__init__()
        (own, *_), (width, *axes) = student, teacher
        size = 3 if axes else 1
        self.align = nn.Identity() if own == width else nn.Conv2d(own, width, 1)
        self.generate = nn.Sequential(
            nn.Conv2d(width, width, size, padding=size // 2),
            nn.ReLU(),
            nn.Conv2d(width, width, size, padding=size // 2),
        )

    def forward(self, student: Tensor, keep: Tensor) -> Tensor:
        guess: Tensor = self.generate(self.align(student) * keep[:, :, None, None])
        return guess


@dataclass(frozen=True, kw_only=True)
class MaskedGeneration(Strategy):
    """Recover the teacher's last stage from the student's with channels missing."""

    name = "mgd"
    family = "feature matching"
    paper = "Yang et al. 2022, arXiv:2205.01529"
    tasks = KINDS
    taps = ("stages",)

    mask_ratio: float = 0.15  # share of channels, 0 <= r < 1; authors' code, ImageNet
    ce_weight: float = 1.0  # >= 0; paper
    mgd_weight: float = 7e-5  # >= 0, on the sum over C, H, W; authors' code, ImageNet

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.mask_ratio < 1:
            raise ValueError(f"mask_ratio must be >= 0 and < 1, not {self.mask_ratio}")

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        return why_no_like_stages(last_stage(student), teacher and last_stage(teacher))

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        return Generation(*(list(m.stages.values())[-1] for m in (student, teacher)))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.adapters is not None  # noqa: S101 (built by adapters() above)
        *_, last = stage_features(batch.student).values()
        *_, goal = stage_features(batch.teacher).values()
        last, goal = as_map(at_least_float32(last)), as_map(at_least_float32(goal))
        last, goal = shrink(last, goal.shape), shrink(goal, last.shape)
        draws = torch.rand(goal.shape[:2], generator=batch.generator)
        keep = (draws >= self.mask_ratio).to(last)
        return {
            "ce": self.ce_weight
            * label_loss(batch.task, batch.student.logits, batch.targets),
            "generation": self.mgd_weight
            * generation_loss(batch.adapters(last, keep), goal),
        }
