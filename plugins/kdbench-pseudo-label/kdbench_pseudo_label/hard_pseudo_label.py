"""Hard pseudo-labels. Lee 2013, ICML Workshop on Challenges in Representation Learning,
equation 14, with the labels given by a teacher (in the paper by the network itself).

loss = ce_weight * CE(z_s, y) + pseudo_weight * CE(z_s, argmax_c z_t)
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy
from kdbench_pseudo_label.ranges import refuse_negative


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision widened to float32; float32 and float64 as they are."""
    return x if x.dtype == torch.float64 else x.float()


def pseudo_label_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy of (B, C) logits to the teacher's arg-max, in nats: batch mean."""
    return F.cross_entropy(at_least_float32(student), teacher.argmax(dim=1))


@dataclass(frozen=True, kw_only=True)
class HardPseudoLabel(Strategy):
    """Train on the teacher's arg-max instead of the labels."""

    name = "hard_pseudo_label"
    family = "pseudo-label"
    paper = "Lee 2013, ICML Workshop on Challenges in Representation Learning"

    ce_weight: float = 0.0  # >= 0, on the true labels; the seed articles use none
    pseudo_weight: float = 1.0  # >= 0, on the teacher's labels; the seed articles

    def __post_init__(self) -> None:
        refuse_negative(self, ("ce_weight", "pseudo_weight"))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student = at_least_float32(batch.student.logits)
        pseudo = pseudo_label_loss(student, batch.teacher.logits)
        terms = {"pseudo": self.pseudo_weight * pseudo}
        if self.ce_weight:
            terms["ce"] = self.ce_weight * F.cross_entropy(student, batch.targets)
        return terms
