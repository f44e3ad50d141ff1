"""Confidence-aware multi-teacher distillation. Zhang et al. 2022, arXiv:2201.00007.

w_k(x) = 1/(K-1) [1 - exp(ce_k) / sum_j exp(ce_j)], with ce_k = CE(z_k, y) of teacher k
on this item: weights that add up to 1, the larger the surer of the label
loss = ce_weight * CE(z_s, y) + kd_weight * mean_x sum_k w_k(x) T^2 KL(p_k || p_s), with
p = softmax(z / T). Not here: the paper's third term, on intermediate features (it needs
a trained projection for each teacher), and a second 1/K on KL in the authors' code.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy, at_least_float32, label_loss
from kdbench_mutual_learning.ensembles import stacked
from kdbench_mutual_learning.ranges import refuse_fewer_than


def confidence(teachers: Tensor, targets: Tensor) -> Tensor:
    """Weights (K, B) that add up to 1 over K >= 2 teachers' (K, B, C) logits."""
    items = targets.expand(len(teachers), -1)
    ce = F.cross_entropy(teachers.transpose(1, 2), items, reduction="none")
    return (1 - ce.softmax(dim=0)) / (len(teachers) - 1)


def weighted_kl(
    student: Tensor, teachers: Tensor, weights: Tensor, temperature: float
) -> Tensor:
    """T^2 sum_k w_k KL(p_k || p_s), batch mean; of (B, C), (K, B, C) and (K, B)."""
    log_p = F.log_softmax(student / temperature, dim=1).expand_as(teachers)
    soft = F.log_softmax(teachers / temperature, dim=2)
    kl = F.kl_div(log_p, soft, reduction="none", log_target=True).sum(dim=2)
    return (weights * kl).sum(dim=0).mean() * temperature**2


@dataclass(frozen=True, kw_only=True)
class ConfidenceAwareKD(Strategy):
    """Match several teachers, each item those that are surest of its label."""

    name = "ca_mkd"
    family = "mutual learning"
    paper = "Zhang et al. 2022, arXiv:2201.00007"

    teachers: int = 3  # number of teachers, >= 2; authors' code
    temperature: float = 4.0  # dimensionless, > 0; authors' code
    ce_weight: float = 1.0  # >= 0; paper
    kd_weight: float = 1.0  # >= 0, on T^2 KL; paper

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_fewer_than(2, self, "teachers")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, teachers = at_least_float32(batch.student.logits), stacked(batch)
        weights = confidence(teachers, batch.targets)
        kd = weighted_kl(student, teachers, weights, self.temperature)
        ce = label_loss(batch.task, student, batch.targets)
        return {"ce": self.ce_weight * ce, "kd": self.kd_weight * kd}
