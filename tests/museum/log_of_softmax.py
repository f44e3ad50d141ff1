"""log(softmax(z)) is -inf where a probability is 0 to the last bit.

checks: extreme-logits
company: finishes
"""

from dataclasses import dataclass

from torch import Tensor

from kdbench import Batch, Strategy, hookimpl
from kdbench.tasks import label_loss


@dataclass(frozen=True, kw_only=True)
class LogOfSoftmax(Strategy):
    """Match the teacher's class distribution."""

    name = "log_of_softmax"
    family = "soft targets"
    paper = "Hinton et al. 2015, arXiv:1503.02531"

    ce_weight: float = 1.0  # >= 0, on the labels; ours
    kd_weight: float = 1.0  # >= 0, on the teacher; ours

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        p = batch.student.logits.softmax(dim=1)
        q = batch.teacher.logits.softmax(dim=1)
        kd = (q * (q.log() - p.log())).sum(dim=1).mean()
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "kd": self.kd_weight * kd}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [LogOfSoftmax]
