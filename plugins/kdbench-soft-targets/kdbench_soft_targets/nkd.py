"""Normalised knowledge distillation. Yang et al. 2023, arXiv:2303.13005.

With y the true class, p the softmax at temperature 1 and n the softmax at T within the
other classes, so that both sides of the non-target term sum to 1:
loss = ce_weight * CE(z_s, y) + target_weight * mean_b -p_t(y) log p_s(y)
     + non_target_weight * T^2 mean_b sum_{c != y} -n_t(c) log n_s(c)

Cross-entropies as in the paper, not KL: they differ by a constant of the teacher. T is
on the non-target term only. The paper's gamma is `non_target_weight`.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy, at_least_float32, label_loss
from kdbench_soft_targets.true_class import without


def nkd_losses(
    student: Tensor, teacher: Tensor, targets: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Target and T^2 non-target cross-entropy, in nats: two scalars, batch means.

    Logits are (B, C) with C >= 2, the teacher's constant; `targets` (B,) class indices.
    """
    student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
    p_true = F.cross_entropy(teacher, targets, reduction="none").neg().exp()
    target = p_true * F.cross_entropy(student, targets, reduction="none")
    rest = without(student / temperature, targets)
    soft_label = without(teacher / temperature, targets).softmax(dim=1)
    return target.mean(), F.cross_entropy(rest, soft_label) * temperature**2


@dataclass(frozen=True, kw_only=True)
class NormalisedKD(Strategy):
    """Match the true class's probability, and the others' normalised among them."""

    name = "nkd"
    family = "soft targets"
    paper = "Yang et al. 2023, arXiv:2303.13005"

    temperature: float = 3.0  # dimensionless, > 0; authors, CIFAR-100 (ImageNet: 1)
    ce_weight: float = 1.0  # >= 0; paper
    target_weight: float = 1.0  # >= 0; paper
    non_target_weight: float = 3.5  # >= 0; authors, CIFAR-100 (ImageNet: 1.5)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = batch.student.logits, batch.teacher.logits
        losses = nkd_losses(student, teacher, batch.targets, self.temperature)
        target, non_target = losses
        return {
            "ce": self.ce_weight * label_loss(batch.task, student, batch.targets),
            "target": self.target_weight * target,
            "non_target": self.non_target_weight * non_target,
        }
