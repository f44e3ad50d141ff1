"""It keeps the last batch's loss in the strategy object itself.

checks: adapters-kept, resume
company: finishes
"""

from dataclasses import dataclass

from torch import Tensor

from kdbench import Batch, Strategy, hookimpl
from kdbench.losses import soft_kl
from kdbench.tasks import label_loss


@dataclass(frozen=True, kw_only=True)
class Remembers(Strategy):
    """Soft targets, the more the larger the loss was in the last batch."""

    name = "remembers"
    family = "soft targets"
    paper = "Hinton et al. 2015, arXiv:1503.02531"

    temperature: float = 4.0  # dimensionless, > 0; paper
    ce_weight: float = 1.0  # >= 0, on the labels; ours
    kd_weight: float = 1.0  # >= 0, on the teacher; ours

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        T = self.temperature
        kd = soft_kl(batch.student.logits, batch.teacher.logits, T)
        before = vars(self).get("_before", 1.0)
        object.__setattr__(self, "_before", min(kd.item(), 2.0))
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "kd": self.kd_weight * before * kd}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [Remembers]
