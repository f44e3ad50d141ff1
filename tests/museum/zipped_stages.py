"""`zip` drops the student's last stages where it has more of them than the teacher.

checks: every-tap-counts
company: finishes
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Batch, Strategy, Tapped, hookimpl
from kdbench.tasks import label_loss


def mean(stage: Tensor) -> Tensor:
    """(B, C) of maps (B, C, H, W) or vectors (B, C)."""
    return stage[..., None].flatten(2).mean(2)


@dataclass(frozen=True, kw_only=True)
class ZippedStages(Strategy):
    """Regress the mean of each of the teacher's stages from the student's."""

    name = "zipped_stages"
    family = "feature matching"
    paper = "Romero et al. 2015, arXiv:1412.6550"
    taps = ("stages",)

    ce_weight: float = 1.0  # >= 0, on the labels; ours
    feature_weight: float = 1.0  # >= 0, on the features; ours

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        pairs = zip(student.stages.values(), teacher.stages.values())
        return nn.ModuleList(nn.Linear(s[0], t[0]) for s, t in pairs)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(batch.adapters, nn.ModuleList)
        student, teacher = batch.student.features, batch.teacher.features
        sides = zip(batch.adapters, student.values(), teacher.values())
        gaps = [F.mse_loss(layer(mean(s)), mean(t)) for layer, s, t in sides]
        feature = torch.stack(gaps).sum()
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "feature": self.feature_weight * feature}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [ZippedStages]
