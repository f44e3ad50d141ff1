"""A term is in float16, which has three digits and ends at 65504.

checks: precisions, extreme-logits
company: finishes
"""

from dataclasses import dataclass

from torch import Tensor

from kdbench import Batch, Strategy, hookimpl
from kdbench.tasks import label_loss


@dataclass(frozen=True, kw_only=True)
class HalfPrecision(Strategy):
    """Match the teacher's logits."""

    name = "half_precision"
    family = "soft targets"
    paper = "Hinton et al. 2015, arXiv:1503.02531"

    ce_weight: float = 1.0  # >= 0, on the labels; ours
    kd_weight: float = 1.0  # >= 0, on the teacher; ours

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        gap = batch.student.logits.half() - batch.teacher.logits.half()
        kd = gap.square().mean()
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "kd": self.kd_weight * kd}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [HalfPrecision]
