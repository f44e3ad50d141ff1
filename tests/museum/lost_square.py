"""T^2 is left out where the labels have no weight.

checks: weights-scale
company: finishes
"""

from dataclasses import dataclass

from torch import Tensor

from kdbench import Batch, Strategy, hookimpl
from kdbench.losses import soft_kl
from kdbench.tasks import label_loss


@dataclass(frozen=True, kw_only=True)
class LostSquare(Strategy):
    """Match the teacher's softened class distribution."""

    name = "lost_square"
    family = "soft targets"
    paper = "Hinton et al. 2015, arXiv:1503.02531"

    temperature: float = 4.0  # dimensionless, > 0; paper
    ce_weight: float = 1.0  # >= 0, on the labels; ours
    kd_weight: float = 1.0  # >= 0, on the teacher; ours

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        T = self.temperature
        kd = soft_kl(batch.student.logits / T, batch.teacher.logits / T)
        if self.ce_weight:
            kd = T**2 * kd
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "kd": self.kd_weight * kd}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [LostSquare]
