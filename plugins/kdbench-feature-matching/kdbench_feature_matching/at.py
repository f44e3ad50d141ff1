"""Attention transfer. Zagoruyko & Komodakis 2017, arXiv:1612.03928, equations 1 and 2.

Q(f) = vec(mean_c |f_c|^p), scaled to unit length, for a map f (C, H, W)
loss = ce_weight * CE + at_weight * sum_stages mean_{b,hw} (Q(f_s) - Q(f_t))^2

Equation 2 takes the norm of the difference; the mean square over batch and positions is
the form of the authors' code, to which the weight of 1000 belongs. Where sizes differ,
the larger attention map is average-pooled to the smaller one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench import KINDS, Batch, Strategy, Tapped, at_least_float32, label_loss
from kdbench_feature_matching.geometry import shrink, sum_of_squares, unit
from kdbench_feature_matching.goals import Goal, stage_goals
from kdbench_feature_matching.matching import why_no_maps


def attention(maps: Tensor, power: float, size: Sequence[int]) -> Tensor:
    """Q (B, H * W) of maps (B, C, H, W), pooled where size (h, w) is smaller."""
    wide = at_least_float32(maps)
    if power == 2:
        summed = sum_of_squares(wide, dim=1)
    else:
        summed = wide.abs().pow(power).sum(dim=1, keepdim=True)
    return unit(shrink(summed / wide.shape[1], size).flatten(1), dim=1)


def attention_loss(student: Tensor, teacher: Goal, power: float) -> Tensor:
    """Mean square difference of the normalised attention of two maps: a scalar.

    Maps are (B, C, H, W); channels and sizes may differ.
    """
    wanted = teacher.once(attention, power, tuple(student.shape[2:]))
    return F.mse_loss(attention(student, power, teacher.shape), wanted)


@dataclass(frozen=True, kw_only=True)
class AttentionTransfer(Strategy):
    """Match where each stage is active, whatever its channels."""

    name = "at"
    family = "feature matching"
    paper = "Zagoruyko & Komodakis 2017, arXiv:1612.03928"
    tasks = KINDS
    taps = ("stages",)

    power: float = 2.0  # exponent p, >= 1; paper
    ce_weight: float = 1.0  # >= 0; paper
    at_weight: float = 1000.0  # >= 0, on each stage's mean square; authors' code, beta

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.power >= 1:
            raise ValueError(f"power must be >= 1, not {self.power}")

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        return why_no_maps(student, teacher)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        losses = [attention_loss(s, t, self.power) for s, t in stage_goals(batch)]
        maps = torch.stack(losses).sum()
        return {"ce": self.ce_weight * ce, "attention": self.at_weight * maps}
