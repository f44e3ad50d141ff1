"""The layers are in a plain list, so they are neither trained nor saved.

checks: gradients, adapters-kept
company: finishes
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Batch, Strategy, Tapped, hookimpl
from kdbench.tasks import label_loss


class Regressor(nn.Module):
    """Two layers from the student's width to the teacher's."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.layers = [nn.Linear(student, teacher), nn.Linear(teacher, teacher)]

    def forward(self, feature: Tensor) -> Tensor:
        for layer in self.layers:
            feature = layer(feature)
        return feature


@dataclass(frozen=True, kw_only=True)
class LooseLayers(Strategy):
    """Regress the teacher's last features from the student's."""

    name = "loose_layers"
    family = "feature matching"
    paper = "Romero et al. 2015, arXiv:1412.6550"
    taps = ("pooled",)

    ce_weight: float = 1.0  # >= 0, on the labels; ours
    feature_weight: float = 1.0  # >= 0, on the features; ours

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        return Regressor(student.shapes["pooled"][0], teacher.shapes["pooled"][0])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.adapters is not None
        guess = batch.adapters(batch.student.features["pooled"])
        feature = F.mse_loss(guess, batch.teacher.features["pooled"])
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "feature": self.feature_weight * feature}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [LooseLayers]
