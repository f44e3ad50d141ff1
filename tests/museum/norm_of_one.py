"""Batch norm over vectors in the adapters raises an error for a single item.

checks: batch-of-one
company: finishes
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Batch, Strategy, Tapped, hookimpl
from kdbench.tasks import label_loss


@dataclass(frozen=True, kw_only=True)
class NormOfOne(Strategy):
    """Regress the teacher's last features, normalised."""

    name = "norm_of_one"
    family = "feature matching"
    paper = "Romero et al. 2015, arXiv:1412.6550"
    taps = ("pooled",)

    ce_weight: float = 1.0  # >= 0, on the labels; ours
    feature_weight: float = 1.0  # >= 0, on the features; ours

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        width = teacher.shapes["pooled"][0]
        layer = nn.Linear(student.shapes["pooled"][0], width)
        return nn.Sequential(layer, nn.BatchNorm1d(width))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.adapters is not None
        guess = batch.adapters(batch.student.features["pooled"])
        feature = F.mse_loss(guess, batch.teacher.features["pooled"])
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "feature": self.feature_weight * feature}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [NormOfOne]
