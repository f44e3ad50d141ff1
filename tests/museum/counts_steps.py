"""Its warm-up counts steps in a Python number, which a resumed run starts anew.

checks: adapters-kept, resume
company: finishes
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Batch, Strategy, Tapped, hookimpl
from kdbench.tasks import label_loss


class Regressor(nn.Module):
    """From the student's width to the teacher's."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.layer = nn.Linear(student, teacher)
        self.steps = 0

    def forward(self, feature: Tensor) -> Tensor:
        self.steps += 1
        guess: Tensor = self.layer(feature)
        return guess


@dataclass(frozen=True, kw_only=True)
class CountsSteps(Strategy):
    """Regress the teacher's last features, little at first."""

    name = "counts_steps"
    family = "feature matching"
    paper = "Romero et al. 2015, arXiv:1412.6550"
    taps = ("pooled",)

    ce_weight: float = 1.0  # >= 0, on the labels; ours
    feature_weight: float = 1.0  # >= 0, on the features; ours

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        return Regressor(student.shapes["pooled"][0], teacher.shapes["pooled"][0])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(batch.adapters, Regressor)
        guess = batch.adapters(batch.student.features["pooled"])
        warm = min(1.0, batch.adapters.steps / 16)
        feature = warm * F.mse_loss(guess, batch.teacher.features["pooled"])
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "feature": self.feature_weight * feature}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [CountsSteps]
