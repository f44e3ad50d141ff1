"""Correlation congruence. Peng et al. 2019, arXiv:1904.01802.

K(i, j) = exp(-2 gamma) sum_{p=0..order} (2 gamma)^p / p! (u_i . u_j)^p, the series of
exp(-gamma |u_i - u_j|^2) in the cosine, with u the pooled vector scaled to length 1
loss = ce_weight * CE + cc_weight * mean_{ij} (K_s(i, j) - K_t(i, j))^2

Not offered is the form of the published tables (RepDistiller, weight 0.02), in 128
learned dimensions: mean_i sum_d |s_i - t_i| |s_i+1 - t_i+1| of neighbours in the batch
is no correlation, and the teacher's learned embedding can make it small.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import KINDS, Batch, Strategy, at_least_float32, label_loss
from kdbench_feature_matching.geometry import gram, unit
from kdbench_feature_matching.goals import Goal, pooled_goal


def kernel(vectors: Tensor, gamma: float, order: int) -> Tensor:
    """K as (B, B), between 0 and 1 but for the series' error, from (B, D) vectors."""
    cosine = gram(unit(at_least_float32(vectors).flatten(1), dim=1))
    powers = [(2 * gamma * cosine) ** p / math.factorial(p) for p in range(order + 1)]
    return math.exp(-2 * gamma) * sum(powers[1:], powers[0])


def congruence_loss(s: Tensor, t: Goal, gamma: float, order: int) -> Tensor:
    """Mean square difference of the correlations of (B, D) vectors: a scalar."""
    return F.mse_loss(kernel(s, gamma, order), t.once(kernel, gamma, order))


@dataclass(frozen=True, kw_only=True)
class CorrelationCongruence(Strategy):
    """Match a Gaussian kernel's view of which items of the batch are close."""

    name = "cc"
    family = "feature matching"
    paper = "Peng et al. 2019, arXiv:1904.01802"
    tasks = KINDS
    taps = ("pooled",)

    gamma: float = 0.4  # > 0, narrowness; Knowledge-Distillation-Zoo, CIFAR-10
    order: int = 2  # Taylor order, >= 1; Knowledge-Distillation-Zoo, CIFAR-10
    ce_weight: float = 1.0  # >= 0; the field's CIFAR-100 setting
    cc_weight: float = 100.0  # >= 0, on the mean over B^2; Knowledge-Distillation-Zoo

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.gamma > 0 and self.order >= 1):
            raise ValueError("gamma must be > 0 and order >= 1")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        congruence = congruence_loss(*pooled_goal(batch), self.gamma, self.order)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "congruence": self.cc_weight * congruence}
