"""It is nobody's: neither `paper` nor a docstring says which method it is.

checks: cited
company: finishes
"""

from dataclasses import dataclass

from torch import Tensor

from kdbench import Batch, Strategy, hookimpl
from kdbench.losses import soft_kl
from kdbench.tasks import label_loss


@dataclass(frozen=True, kw_only=True)
class Unsigned(Strategy):
    """Match the teacher's softened class distribution."""

    name = "unsigned"
    family = "soft targets"

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
    return [Unsigned]
