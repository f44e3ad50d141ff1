"""`kd_weight` is the labels' as well: they get what it leaves of 1.

checks: weights-scale
company: finishes
"""

from dataclasses import dataclass

from torch import Tensor

from kdbench import Batch, Strategy, hookimpl
from kdbench.losses import soft_kl
from kdbench.tasks import label_loss


@dataclass(frozen=True, kw_only=True)
class RestOfOne(Strategy):
    """Match the teacher's softened class distribution."""

    name = "rest_of_one"
    family = "soft targets"
    paper = "Hinton et al. 2015, arXiv:1503.02531"

    temperature: float = 4.0  # dimensionless, > 0; paper
    ce_weight: float = 1.0  # >= 0, on the labels; ours
    kd_weight: float = 0.9  # >= 0, on the teacher; ours

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        kd = soft_kl(batch.student.logits, batch.teacher.logits, self.temperature)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        ce = (1 - self.kd_weight) * self.ce_weight * ce
        return {"ce": ce, "kd": self.kd_weight * kd}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [RestOfOne]
