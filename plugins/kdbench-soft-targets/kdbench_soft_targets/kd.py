"""Soft targets. Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 2.

loss = ce_weight * CE(z_s, y) + kd_weight * T^2 KL(softmax(z_t / T) || softmax(z_s / T))

In a regression the teacher's number is the soft target, as Ba & Caruana 2014,
arXiv:1312.6184, equation 1, regress on outputs, and nothing is softened:
loss = ce_weight * mean (f_s - y)^2 + kd_weight * mean (f_s - f_t)^2
"""

from dataclasses import dataclass

from torch import Tensor

from kdbench import KINDS, Batch, Strategy, label_loss, soft_kl
from kdbench_soft_targets.logit_mse import logit_mse
from kdbench_soft_targets.targets import mixed_target


@dataclass(frozen=True, kw_only=True)
class SoftTargets(Strategy):
    """Match the teacher's softened class distribution."""

    name = "kd"
    family = "soft targets"
    paper = "Hinton et al. 2015, arXiv:1503.02531"
    tasks = KINDS

    temperature: float = 4.0  # dimensionless, > 0; the field's CIFAR-100 setting
    ce_weight: float = 0.1  # >= 0; the field's CIFAR-100 setting
    kd_weight: float = 0.9  # >= 0, on T^2 KL; the field's CIFAR-100 setting

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = batch.student.logits, batch.teacher.logits
        if batch.task.kind == "regression":
            kd = logit_mse(student, teacher)
        else:
            kd = soft_kl(student, teacher, self.temperature)
        return {
            "ce": self.ce_weight * label_loss(batch.task, student, batch.targets),
            "kd": self.kd_weight * kd,
        }

    def target(self, batch: Batch) -> Tensor:
        return mixed_target(batch, self.ce_weight, self.kd_weight, self.temperature)
