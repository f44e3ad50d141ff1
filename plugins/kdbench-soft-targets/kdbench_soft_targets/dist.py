"""DIST: a stronger teacher. Huang et al. 2022, arXiv:2205.10536, section 4.

With p = softmax(z / tau) (B, C) and r the Pearson correlation:
inter = 1 - mean_b r(p_s[b, :], p_t[b, :]);  intra = 1 - mean_c r(p_s[:, c], p_t[:, c])
loss = ce_weight * CE
     + dist_weight * tau^2 * (inter_weight * inter + intra_weight * intra)

A correlation with a constant vector is undefined; here it counts as 0 and has no
gradient. A batch of one item has no intra-class relation: its intra term is 0.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy, at_least_float32, label_loss
from kdbench_soft_targets.correlation import pearson


def dist_losses(
    student: Tensor, teacher: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """tau^2-scaled inter-class and intra-class losses of (B, C) logits: two scalars.

    The teacher is a constant.
    """
    p_student = F.softmax(at_least_float32(student) / temperature, dim=1)
    p_teacher = F.softmax(at_least_float32(teacher.detach()) / temperature, dim=1)
    inter = 1 - pearson(p_student, p_teacher, dim=1).mean()
    if len(p_student) == 1:
        return inter * temperature**2, inter.new_zeros(())
    intra = 1 - pearson(p_student, p_teacher, dim=0).mean()
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
    inter_weight: float = 1.0  # >= 0, beta relative to dist_weight; paper
    intra_weight: float = 1.0  # >= 0, gamma relative to dist_weight; paper

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = batch.student.logits, batch.teacher.logits
        inter, intra = dist_losses(student, teacher, self.temperature)
        return {
            "ce": self.ce_weight * label_loss(batch.task, student, batch.targets),
            "inter": self.dist_weight * self.inter_weight * inter,
            "intra": self.dist_weight * self.intra_weight * intra,
        }
