"""Its memory of the teacher's mean answer is the class's, not each run's.

checks: company
company: finishes
"""

from dataclasses import dataclass

from torch import Tensor

from kdbench import Batch, Strategy, hookimpl, label_loss, soft_kl

MEAN: dict[str, Tensor] = {}


@dataclass(frozen=True, kw_only=True)
class SharedMemory(Strategy):
    """Match the teacher's softened class distribution."""

    name = "shared_memory"
    family = "soft targets"
    paper = "Hinton et al. 2015, arXiv:1503.02531"

    temperature: float = 4.0  # dimensionless, > 0; paper
    ce_weight: float = 0.1  # >= 0, on the labels; ours
    kd_weight: float = 0.9  # >= 0, on the teacher; ours

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = batch.student.logits, batch.teacher.logits
        if batch.epoch == 0:
            MEAN.clear()
        now = teacher.mean(dim=0) * self.ce_weight
        MEAN["answer"] = 0.5 * (MEAN.get("answer", now) + now)
        teacher = teacher - MEAN["answer"]
        ce = label_loss(batch.task, student, batch.targets)
        kd = soft_kl(student, teacher, self.temperature)
        return {"ce": self.ce_weight * ce, "kd": self.kd_weight * kd}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [SharedMemory]
