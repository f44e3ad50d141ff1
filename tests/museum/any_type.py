"""A hyper-parameter is annotated with Any, so that a suite may write anything.

checks: typed
company: finishes
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kdbench import Batch, Strategy, hookimpl
from kdbench.losses import soft_kl
from kdbench.tasks import label_loss


@dataclass(frozen=True, kw_only=True)
class AnyType(Strategy):
    """Match the teacher's softened class distribution."""

    name = "any_type"
    family = "soft targets"
    paper = "Hinton et al. 2015, arXiv:1503.02531"

    temperature: float = 4.0  # dimensionless, > 0; paper
    ce_weight: float = 0.1  # >= 0, on the labels; ours
    kd_weight: float = 0.9  # >= 0, on the teacher; ours
    factor: Any = 1.0  # on all terms, > 0; ours

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        T = self.temperature
        kd = soft_kl(batch.student.logits / T, batch.teacher.logits / T)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {
            "ce": self.ce_weight * ce,
            "kd": self.factor * self.kd_weight * T**2 * kd,
        }


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [AnyType]
