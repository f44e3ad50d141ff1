"""Attention transfer. Zagoruyko & Komodakis 2017, arXiv:1612.03928, equations 1 and 2.

Q(f) = vec(mean_c |f_c|^p), scaled to unit length, for a map f (C, H, W)
loss = ce_weight * CE + at_weight * sum_stages mean_{b,hw} (Q(f_s) - Q(f_t))^2

Equation 2 takes the norm of the difference; the mean square over batch and positions is
the form of the authors' code, to which the weight of 1000 belongs. Where sizes differ,
the larger attention map is average-pooled to the smaller one.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench import KINDS, Batch, Strategy, Tapped, label_loss
from kdbench_feature_matching.geometry import at_least_float32, shrink, unit
from kdbench_feature_matching.matching import match_stages, stage_pairs
from kdbench_feature_matching.ranges import refuse_negative


def attention_map(feature: Tensor, power: float) -> Tensor:
    """Spatial attention (B, H, W) of maps (B, C, H, W): mean over channels of |f|^p."""
    feature = at_least_float32(feature)
    raised = feature.square() if power == 2 else feature.abs().pow(power)
    return raised.mean(dim=1)


def attention_loss(student: Tensor, teacher: Tensor, power: float) -> Tensor:
    """Mean square difference of the normalised attention of two maps: a scalar.

    Maps are (B, C, H, W); channels and sizes may differ. The teacher is a constant.
    """
    of_student = attention_map(student, power)
    of_teacher = attention_map(teacher.detach(), power)
    of_student, of_teacher = (
        shrink(of_student, of_teacher.shape).flatten(1),  # (B, H * W)
        shrink(of_teacher, of_student.shape).flatten(1),
    )
    return F.mse_loss(unit(of_student, dim=1), unit(of_teacher, dim=1))


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
        if not self.power >= 1:
            raise ValueError(f"power must be >= 1, not {self.power}")
        refuse_negative(self, ("ce_weight", "at_weight"))

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        if teacher is None:
            return "there is no teacher"
        for model in (student, teacher):
            if not model.stages:
                return f"{model.name} has no stages to take attention maps from"
            for stage, shape in model.stages.items():
                if len(shape) != 3:
                    return f"{stage} of {model.name} has no spatial axes: {shape}"
        try:
            match_stages(student.stages, teacher.stages)
        except ValueError as error:
            return str(error)
        return None

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        stages = [
            attention_loss(student, teacher, self.power)
            for student, teacher in stage_pairs(batch.student, batch.teacher)
        ]
        return {
            "ce": self.ce_weight * ce,
            "attention": self.at_weight * torch.stack(stages).sum(),
        }
