"""It takes it for granted that there are ten classes.

checks: trains
company: fails
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy, hookimpl
from kdbench.tasks import label_loss


@dataclass(frozen=True, kw_only=True)
class TenClasses(Strategy):
    """Match the teacher's distribution, mixed with an even one."""

    name = "ten_classes"
    family = "soft targets"
    paper = "Hinton et al. 2015, arXiv:1503.02531"

    ce_weight: float = 1.0  # >= 0, on the labels; ours
    kd_weight: float = 1.0  # >= 0, on the teacher; ours

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        even = torch.full((len(batch.targets), 10), 0.1)
        wanted = 0.9 * batch.teacher.logits.softmax(1) + 0.1 * even
        kd = F.cross_entropy(batch.student.logits, wanted)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "kd": self.kd_weight * kd}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [TenClasses]
