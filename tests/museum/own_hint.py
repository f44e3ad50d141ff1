"""A slip: the student is compared with the student itself, not with the teacher.

checks: every-tap-counts
company: finishes
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy, hookimpl
from kdbench.tasks import label_loss


@dataclass(frozen=True, kw_only=True)
class OwnHint(Strategy):
    """Match the means of the last features."""

    name = "own_hint"
    family = "feature matching"
    paper = "Romero et al. 2015, arXiv:1412.6550"
    taps = ("pooled",)

    ce_weight: float = 1.0  # >= 0, on the labels; ours
    feature_weight: float = 1.0  # >= 0, on the features; ours

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student = batch.student.features["pooled"].mean(1)
        teacher = batch.student.features["pooled"].detach().amax(1)
        feature = F.mse_loss(student, teacher)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "feature": self.feature_weight * feature}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [OwnHint]
