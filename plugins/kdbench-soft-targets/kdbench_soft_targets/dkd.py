"""Decoupled knowledge distillation. Zhao et al. 2022, arXiv:2203.08679, equations 5-7.

The softened KL splits into TCKD + (1 - p_t) NCKD, which DKD weighs apart: p_t is the
teacher's probability of the true class, TCKD the KL of (true class, the rest), NCKD the
KL within the rest.
loss = ce_weight * CE + T^2 warm_up (target_weight * TCKD + non_target_weight * NCKD)
"""

import math
from dataclasses import dataclass

from torch import Tensor

from kdbench import Batch, Strategy, at_least_float32, label_loss, soft_kl
from kdbench_soft_targets.presets import DKD
from kdbench_soft_targets.true_class import apart


def dkd_losses(
    student: Tensor, teacher: Tensor, targets: Tensor, temperature: float
) -> list[Tensor]:
    """T^2 TCKD and T^2 NCKD, in nats, of (B, C) logits: two scalars, batch means.

    C >= 2, `targets` are (B,) class indices, and the teacher is a constant.
    """
    of_student = apart(at_least_float32(student) / temperature, targets)
    of_teacher = apart(at_least_float32(teacher) / temperature, targets)
    pairs = zip(of_student, of_teacher, strict=True)
    return [soft_kl(s, t) * temperature**2 for s, t in pairs]


@dataclass(frozen=True, kw_only=True)
class DecoupledKD(Strategy):
    """Soft targets, with the true class and the other classes weighed apart."""

    name = "dkd"
    family = "soft targets"
    paper = "Zhao et al. 2022, arXiv:2203.08679"
    presets = DKD

    temperature: float = 4.0  # dimensionless, > 0; paper, CIFAR-100
    ce_weight: float = 1.0  # >= 0; paper
    target_weight: float = 1.0  # >= 0, the paper's alpha; paper
    non_target_weight: float = 8.0  # >= 0, the paper's beta; authors: 2, 6, 8 by pair
    warmup_epochs: int = 20  # epochs, >= 0, 0 for none; authors' code, CIFAR-100

    def warm_up(self, epoch: float) -> float:
        """Factor on both KL terms: (1, 2, ...) / warmup_epochs, at most 1."""
        return min(1.0, (math.floor(epoch) + 1) / max(self.warmup_epochs, 1))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = batch.student.logits, batch.teacher.logits
        losses = dkd_losses(student, teacher, batch.targets, self.temperature)
        target, non_target = (self.warm_up(batch.epoch) * loss for loss in losses)
        return {
            "ce": self.ce_weight * label_loss(batch.task, student, batch.targets),
            "target": self.target_weight * target,
            "non_target": self.non_target_weight * non_target,
        }
