"""Probabilistic knowledge transfer. Passalis & Tefas 2018, ECCV (arXiv:1803.10837).

K(i, j) = (cos(e_i, e_j) + 1) / 2;  p(j | i) = K(i, j) / sum_k K(i, k)
loss = ce_weight * CE + pkt_weight * mean_{ij} p_t(j | i) log [p_t(j | i) / p_s(j | i)]

e is the pooled vector. The paper sums the KL over pairs of different items; the mean
over all B^2 entries is the form of the authors' code, to which 30000 belongs.
"""

from dataclasses import dataclass

from torch import Tensor

from kdbench import KINDS, Batch, Strategy, at_least_float32, label_loss
from kdbench_feature_matching.geometry import gram, unit
from kdbench_feature_matching.goals import Goal, pooled_goal

EPS = 1e-7
"""Added to both probabilities under the logarithm, as in the authors' code."""


def neighbour_probabilities(vectors: Tensor) -> Tensor:
    """p(j | i) as (B, B) with rows that sum to 1, from (B, D) vectors."""
    cosine = gram(unit(at_least_float32(vectors).flatten(1), dim=1))
    # Rounding may take the cosine of opposite vectors below -1.
    kernel = ((cosine + 1) / 2).clamp(min=0)
    return kernel / kernel.sum(dim=1, keepdim=True)


def probability_loss(student: Tensor, teacher: Goal) -> Tensor:
    """KL(teacher || student) over neighbours of (B, D) vectors, in nats / B^2 entries.

    D may differ.
    """
    p_student = neighbour_probabilities(student)
    p_teacher = teacher.once(neighbour_probabilities)
    log_ratio = (p_teacher + EPS).log() - (p_student + EPS).log()
    return (p_teacher * log_ratio).mean()


@dataclass(frozen=True, kw_only=True)
class ProbabilisticTransfer(Strategy):
    """Match how probable each item is as a neighbour of each other one."""

    name = "pkt"
    family = "feature matching"
    paper = "Passalis & Tefas 2018, ECCV, arXiv:1803.10837"
    tasks = KINDS
    taps = ("pooled",)

    ce_weight: float = 1.0  # >= 0; the field's CIFAR-100 setting
    pkt_weight: float = 30000.0  # >= 0, on the mean over B^2 entries; the field's

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        probability = probability_loss(*pooled_goal(batch))
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "probability": self.pkt_weight * probability}
