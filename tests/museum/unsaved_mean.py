"""Its running mean of the teacher is a buffer that is left out of the checkpoint.

checks: adapters-kept, resume
company: finishes
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Batch, Strategy, Tapped, hookimpl
from kdbench.tasks import label_loss


class Centre(nn.Module):
    """A layer to the teacher's width, and the teacher's running mean."""

    mean: Tensor

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.layer = nn.Linear(student, teacher)
        self.register_buffer("mean", torch.zeros(teacher), persistent=False)


@dataclass(frozen=True, kw_only=True)
class UnsavedMean(Strategy):
    """Match the teacher's last features, centred by their running mean."""

    name = "unsaved_mean"
    family = "feature matching"
    paper = "Romero et al. 2015, arXiv:1412.6550"
    taps = ("pooled",)

    ce_weight: float = 1.0  # >= 0, on the labels; ours
    feature_weight: float = 1.0  # >= 0, on the features; ours

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        return Centre(student.shapes["pooled"][0], teacher.shapes["pooled"][0])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        adapters = batch.adapters
        assert isinstance(adapters, Centre)
        teacher = batch.teacher.features["pooled"]
        adapters.mean.lerp_(teacher.mean(0), 0.1)
        guess = adapters.layer(batch.student.features["pooled"])
        feature = F.mse_loss(guess, teacher - adapters.mean)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "feature": self.feature_weight * feature}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [UnsavedMean]
