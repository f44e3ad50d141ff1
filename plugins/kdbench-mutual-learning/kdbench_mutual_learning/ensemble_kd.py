"""Distilling an ensemble. Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 3; You
et al. 2017, KDD, "Learning from multiple teacher networks".

loss = ce_weight * CE(z_s, y) + kd_weight * T^2 KL(p_t || softmax(z_s / T)) with
p_t = mean_k softmax(z_k / T) over the teachers k. In a regression p_t is the mean of
the teachers' numbers, and CE and KL are squared errors.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import KINDS, Batch, Strategy, at_least_float32, label_loss, soft_kl
from kdbench_mutual_learning.ensembles import log_mean_softmax, mixed_target, stacked
from kdbench_mutual_learning.ranges import refuse_fewer_than


def ensemble_kl(student: Tensor, teachers: Tensor, temperature: float) -> Tensor:
    """T^2 KL(mean teacher || student), in nats: batch mean, of (B, C), (K, B, C)."""
    log_mean = log_mean_softmax(teachers, temperature)
    return soft_kl(student / temperature, log_mean) * temperature**2


@dataclass(frozen=True, kw_only=True)
class EnsembleKD(Strategy):
    """Match the mean of several teachers' softened class distributions."""

    name = "ensemble_kd"
    family = "mutual learning"
    paper = "Hinton et al. 2015, arXiv:1503.02531; You et al. 2017, KDD"
    tasks = KINDS

    teachers: int = 3  # number of teachers, >= 2; our choice (Hinton et al.: 10)
    temperature: float = 4.0  # dimensionless, > 0; kd's, the field's CIFAR-100 setting
    ce_weight: float = 0.1  # >= 0; kd's, the field's CIFAR-100 setting
    kd_weight: float = 0.9  # >= 0, on T^2 KL; kd's, the field's CIFAR-100 setting

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_fewer_than(2, self, "teachers")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, teachers = at_least_float32(batch.student.logits), stacked(batch)
        if batch.task.kind == "regression":
            kd = F.mse_loss(student, teachers.mean(0))
        else:
            kd = ensemble_kl(student, teachers, self.temperature)
        ce = label_loss(batch.task, student, batch.targets)
        return {"ce": self.ce_weight * ce, "kd": self.kd_weight * kd}

    def target(self, batch: Batch) -> Tensor:
        return mixed_target(batch, self.ce_weight, self.kd_weight, self.temperature)
