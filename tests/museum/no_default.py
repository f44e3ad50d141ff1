"""A hyper-parameter has no default.

checks: loads
company: broken
"""

from dataclasses import dataclass

from torch import Tensor

from kdbench import Batch, Strategy, hookimpl, label_loss, soft_kl


@dataclass(frozen=True, kw_only=True)
class NoDefault(Strategy):
    """Match the teacher's softened class distribution."""

    name = "no_default"
    family = "soft targets"
    paper = "Hinton et al. 2015, arXiv:1503.02531"

    temperature: float  # dimensionless, > 0; paper
    ce_weight: float = 0.1  # >= 0, on the labels; ours
    kd_weight: float = 0.9  # >= 0, on the teacher; ours

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = batch.student.logits, batch.teacher.logits
        ce = label_loss(batch.task, student, batch.targets)
        kd = soft_kl(student, teacher, self.temperature)
        return {"ce": self.ce_weight * ce, "kd": self.kd_weight * kd}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [NoDefault]
