"""The dataclass is not frozen: anyone can change its values while it trains.

checks: round-trip
company: finishes
"""

from dataclasses import dataclass

from torch import Tensor

from kdbench import Batch, Strategy, hookimpl
from kdbench.losses import soft_kl
from kdbench.tasks import label_loss


@dataclass(kw_only=True)
class NotFrozen(Strategy):
    """Match the teacher's softened class distribution."""

    name = "not_frozen"
    family = "soft targets"
    paper = "Hinton et al. 2015, arXiv:1503.02531"

    temperature: float = 4.0  # dimensionless, > 0; paper
    ce_weight: float = 0.1  # >= 0, on the labels; ours
    kd_weight: float = 0.9  # >= 0, on the teacher; ours

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        T = self.temperature
        kd = soft_kl(batch.student.logits / T, batch.teacher.logits / T)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "kd": self.kd_weight * T**2 * kd}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [NotFrozen]
