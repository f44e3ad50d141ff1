"""A weight is called alpha, which is the labels' in one toolbox and not in another.

checks: plain-names
company: finishes
"""

from dataclasses import dataclass

from torch import Tensor

from kdbench import Batch, Strategy, hookimpl
from kdbench.losses import soft_kl
from kdbench.tasks import label_loss


@dataclass(frozen=True, kw_only=True)
class GreekLetter(Strategy):
    """Match the teacher's softened class distribution."""

    name = "greek_letter"
    family = "soft targets"
    paper = "Hinton et al. 2015, arXiv:1503.02531"

    temperature: float = 4.0  # dimensionless, > 0; paper
    alpha: float = 0.9  # in [0, 1], on the teacher; paper

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        T = self.temperature
        kd = soft_kl(batch.student.logits / T, batch.teacher.logits / T)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": (1 - self.alpha) * ce, "kd": self.alpha * T**2 * kd}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [GreekLetter]
