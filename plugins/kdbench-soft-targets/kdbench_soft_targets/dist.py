"""DIST: a stronger teacher. Huang et al. 2022, arXiv:2205.10536, section 4.

With p = softmax(z / tau) (B, C) and r the Pearson correlation:
inter = 1 - mean_b r(p_s[b, :], p_t[b, :]);  intra = 1 - mean_c r(p_s[:, c], p_t[:, c])
loss = ce_weight * CE
     + dist_weight * tau^2 * (inter_weight * inter + intra_weight * intra)

A correlation with a constant vector is undefined; here it counts as 0 and has no
gradient. A batch of one item has no intra-class relation: its intra term is 0.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy
from kdbench_soft_targets.divergence import at_least_float32
from kdbench_soft_targets.ranges import refuse_bad_temperature, refuse_negative


def _standardised(p: Tensor, dim: int) -> Tensor:
    """`p` centred and of unit length along `dim`; 0 where it is constant."""
    centred = p - p.mean(dim, keepdim=True)
    length = torch.linalg.vector_norm(centred, dim=dim, keepdim=True)
    # What rounding leaves of a constant vector is no direction.
    noise = torch.linalg.vector_norm(p.detach(), dim=dim, keepdim=True)
    noise = noise * (8 * torch.finfo(p.dtype).eps)
    return centred / torch.where(length > noise, length, math.inf)


def one_minus_pearson(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """1 - Pearson correlation along `dim` of two (B, C) arrays: mean, in [0, 2]."""
    correlation = _standardised(student, dim) * _standardised(teacher, dim)
    return 1 - correlation.sum(dim).mean()


def dist_losses(
    student: Tensor, teacher: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """tau^2-scaled inter-class and intra-class losses of (B, C) logits: two scalars.

    The teacher is a constant.
    """
    p_student = F.softmax(at_least_float32(student) / temperature, dim=1)
    p_teacher = F.softmax(at_least_float32(teacher.detach()) / temperature, dim=1)
    inter = one_minus_pearson(p_student, p_teacher, dim=1)
    if len(p_student) == 1:
        return inter * temperature**2, inter.new_zeros(())
    intra = one_minus_pearson(p_student, p_teacher, dim=0)
    return inter * temperature**2, intra * temperature**2


@dataclass(frozen=True, kw_only=True)
class Dist(Strategy):
    """Match correlations of the probabilities, over classes and over the batch."""

    name = "dist"
    family = "soft targets"
    paper = "Huang et al. 2022, arXiv:2205.10536"

    temperature: float = 4.0  # dimensionless, > 0, the paper's tau; CIFAR (ImageNet 1)
    ce_weight: float = 1.0  # >= 0; paper
    dist_weight: float = 2.0  # >= 0, on both relations; paper
    inter_weight: float = 1.0  # >= 0, the paper's beta relative to dist_weight
    intra_weight: float = 1.0  # >= 0, the paper's gamma relative to dist_weight

    def __post_init__(self) -> None:
        refuse_bad_temperature(self.temperature)
        weights = ("ce_weight", "dist_weight", "inter_weight", "intra_weight")
        refuse_negative(self, weights)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student = at_least_float32(batch.student.logits)
        inter, intra = dist_losses(student, batch.teacher.logits, self.temperature)
        return {
            "ce": self.ce_weight * F.cross_entropy(student, batch.targets),
            "inter": self.dist_weight * self.inter_weight * inter,
            "intra": self.dist_weight * self.intra_weight * intra,
        }
