"""Its relation term has the wrong sign: it drives distances apart.

checks: learns
company: finishes
"""

from dataclasses import dataclass

from torch import Tensor

from kdbench import Batch, Strategy, hookimpl, label_loss


def distances(rows: Tensor) -> Tensor:
    """Between all pairs of (B, D) rows: (B, B)."""
    gaps = rows[:, None] - rows[None]
    return (gaps.square().sum(dim=2) + 1e-6).sqrt()


@dataclass(frozen=True, kw_only=True)
class WrongSign(Strategy):
    """Match the distances between the teacher's answers."""

    name = "wrong_sign"
    family = "soft targets"
    paper = "Hinton et al. 2015, arXiv:1503.02531"

    ce_weight: float = 1.0  # >= 0, on the labels; ours
    relation_weight: float = 5.0  # >= 0, on the distances; ours

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = batch.student.logits, batch.teacher.logits
        ce = label_loss(batch.task, student, batch.targets)
        apart = (distances(student) - distances(teacher)).abs().mean()
        return {"ce": self.ce_weight * ce, "relation": -self.relation_weight * apart}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [WrongSign]
