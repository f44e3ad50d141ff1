"""Soft targets. Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 2.

loss = ce_weight * CE(z_s, y) + kd_weight * T^2 KL(softmax(z_t / T) || softmax(z_s / T))
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy
from kdbench_soft_targets.divergence import at_least_float32, soft_kl
from kdbench_soft_targets.ranges import refuse_bad_temperature, refuse_negative


@dataclass(frozen=True, kw_only=True)
class SoftTargets(Strategy):
    """Match the teacher's softened class distribution."""

    name = "kd"
    family = "soft targets"
    paper = "Hinton et al. 2015, arXiv:1503.02531"

    temperature: float = 4.0  # dimensionless, > 0; the field's CIFAR-100 setting
    ce_weight: float = 0.1  # >= 0; the field's CIFAR-100 setting
    kd_weight: float = 0.9  # >= 0, on T^2 KL; the field's CIFAR-100 setting

    def __post_init__(self) -> None:
        refuse_bad_temperature(self.temperature)
        refuse_negative(self, ("ce_weight", "kd_weight"))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student = at_least_float32(batch.student.logits)
        kd = soft_kl(student, batch.teacher.logits, self.temperature)
        return {
            "ce": self.ce_weight * F.cross_entropy(student, batch.targets),
            "kd": self.kd_weight * kd,
        }
