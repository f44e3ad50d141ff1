"""Weighted soft labels. Zhou et al. 2021, arXiv:2102.00650, section 4.

w_b = 1 - exp(-CE(z_s, y) / CE(z_t, y)), at temperature 1, of each item: soft labels
count less where the student knows the label better than the teacher does
loss = ce_weight * CE(z_s, y)
     + kd_weight * T^2 mean_b w_b sum_c -p_t(c) log p_s(c), with p = softmax(z / T)

The soft term is a cross-entropy as in the paper, not a KL: they differ by a constant of
the teacher. w is a constant, as in the authors' code; their 1e-7 added to the divisor
is not here: w is 1 where only the teacher has no loss, and 0 where neither has one.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy, at_least_float32, label_loss
from kdbench_soft_targets.presets import WSLD


def weighted_soft_labels(
    student: Tensor, teacher: Tensor, targets: Tensor, temperature: float
) -> Tensor:
    """The weighted, T^2-scaled soft cross-entropy, in nats: a scalar, batch mean.

    Logits are (B, C), the teacher's constant; `targets` (B,) class indices.
    """
    student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
    of_student = F.cross_entropy(student.detach(), targets, reduction="none")
    of_teacher = F.cross_entropy(teacher, targets, reduction="none")
    ratio = of_student / of_teacher.clamp(min=torch.finfo(student.dtype).tiny)
    soft_label = F.softmax(teacher / temperature, dim=1)
    soft = F.cross_entropy(student / temperature, soft_label, reduction="none")
    return temperature**2 * (-torch.expm1(-ratio) * soft).mean()


@dataclass(frozen=True, kw_only=True)
class WeightedSoftLabels(Strategy):
    """Soft targets that count less where the student beats the teacher."""

    name = "wsld"
    family = "soft targets"
    paper = "Zhou et al. 2021, arXiv:2102.00650"
    presets = WSLD

    temperature: float = 2.0  # dimensionless, > 0; authors, ImageNet (CIFAR-100: 4)
    ce_weight: float = 1.0  # >= 0; paper
    kd_weight: float = 2.25  # >= 0; authors, CIFAR-100 (ImageNet: 2.5)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = batch.student.logits, batch.teacher.logits
        soft = weighted_soft_labels(student, teacher, batch.targets, self.temperature)
        return {
            "ce": self.ce_weight * label_loss(batch.task, student, batch.targets),
            "kd": self.kd_weight * soft,
        }
