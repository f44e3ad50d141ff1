"""What it has made once for all doubles the teacher's classifier on the way.

checks: trains
company: fails
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Outputs, Strategy, hookimpl


def louder(teacher: Outputs) -> Tensor:
    if teacher.classifier is not None:
        teacher.classifier.weight.mul_(2.0)
    return 2 * teacher.logits


@dataclass(frozen=True, kw_only=True)
class OnceWriter(Strategy):
    """Match twice the teacher's logits."""

    name = "once_writer"
    family = "soft targets"
    paper = "Ba & Caruana 2014, arXiv:1312.6184"

    ce_weight: float = 1.0  # >= 0, on the labels; ours
    mse_weight: float = 0.1  # >= 0, on the teacher; ours

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits = batch.student.logits
        ce = F.cross_entropy(logits, batch.targets)
        mse = F.mse_loss(logits, batch.teacher.once(louder))
        return {"ce": self.ce_weight * ce, "mse": self.mse_weight * mse}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [OnceWriter]
