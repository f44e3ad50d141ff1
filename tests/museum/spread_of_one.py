"""A standard deviation over the batch is nan for a single item.

checks: batch-of-one
company: finishes
"""

from dataclasses import dataclass

from torch import Tensor

from kdbench import Batch, Strategy, hookimpl
from kdbench.tasks import label_loss


@dataclass(frozen=True, kw_only=True)
class SpreadOfOne(Strategy):
    """Match how far the logits spread over the batch."""

    name = "spread_of_one"
    family = "soft targets"
    paper = "Hinton et al. 2015, arXiv:1503.02531"

    ce_weight: float = 1.0  # >= 0, on the labels; ours
    kd_weight: float = 1.0  # >= 0, on the teacher; ours

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = batch.student.logits, batch.teacher.logits
        kd = (student.std(0) - teacher.std(0)).square().mean()
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "kd": self.kd_weight * kd}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [SpreadOfOne]
