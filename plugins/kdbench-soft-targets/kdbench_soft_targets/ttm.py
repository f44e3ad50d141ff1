"""Transformed teacher matching. Zheng & Yang 2024, arXiv:2402.11148, sections 3, 4.

q = p_t^(1/T) / sum_c p_t(c)^(1/T) = softmax(z_t / T), the power transform of the
teacher's p_t = softmax(z_t); the student's p_s = softmax(z_s) has no temperature
loss = ce_weight * CE(z_s, y) + ttm_weight * mean_b u_b KL(q || p_s), without a T^2

u is 1 (TTM), or with `weighted` sum_c p_t(c)^(1/T), which is between 1 and C^(1 - 1/T)
for T >= 1 and larger for a smoother teacher (WTTM; it wants a smaller weight). T is 1 /
gamma of the authors' code.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy, at_least_float32, label_loss


def transformed_kl(
    student: Tensor, teacher: Tensor, temperature: float, weighted: bool = False
) -> Tensor:
    """(Weighted) KL(q || p_s) of (B, C) logits, in nats: a scalar, batch mean.

    The teacher is a constant.
    """
    log_student = F.log_softmax(at_least_float32(student), dim=1)
    powers = F.log_softmax(at_least_float32(teacher.detach()), dim=1) / temperature
    log_teacher = F.log_softmax(powers, dim=1)
    kl = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)
    return (kl * powers.exp().sum(1) if weighted else kl).mean()


@dataclass(frozen=True, kw_only=True)
class TransformedTeacher(Strategy):
    """Match the softened teacher with a student that is not softened."""

    name = "ttm"
    family = "soft targets"
    paper = "Zheng & Yang 2024, arXiv:2402.11148"

    teacher_temperature: float = 10.0  # dimensionless, > 0; authors' code, vgg13-vgg8
    ce_weight: float = 1.0  # >= 0; authors' code
    ttm_weight: float = 45.0  # >= 0, the paper's beta; authors' code, vgg13-vgg8
    weighted: bool = False  # whether by each item's smoothness (WTTM); the paper's both

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student = at_least_float32(batch.student.logits)
        teacher = batch.teacher.logits
        kl = transformed_kl(student, teacher, self.teacher_temperature, self.weighted)
        return {
            "ce": self.ce_weight * label_loss(batch.task, student, batch.targets),
            "ttm": self.ttm_weight * kl,
        }
