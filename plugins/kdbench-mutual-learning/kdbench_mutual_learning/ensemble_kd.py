"""Distilling an ensemble. Hinton, Vinyals & Dean 2015, arXiv:1503.02531, section 3; You
et al. 2017, KDD, "Learning from multiple teacher networks".

p_t = mean_k softmax(z_k / T) over the teachers k
loss = ce_weight * CE(z_s, y) + kd_weight * T^2 KL(p_t || softmax(z_s / T))

In a regression p_t is the mean of the teachers' numbers, and CE and KL are squared
errors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench import KINDS, Batch, Strategy, label_loss, label_target
from kdbench_mutual_learning.precision import at_least_float32
from kdbench_mutual_learning.ranges import refuse_fewer_than_two, refuse_negative


def log_mean_softmax(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """Log of the mean of softened distributions: (B, C), from K logits (B, C)."""
    stacked = at_least_float32(torch.stack(tuple(logits)).detach())  # (K, B, C)
    log_p = F.log_softmax(stacked / temperature, dim=2)
    return log_p.logsumexp(dim=0) - math.log(len(logits))


def mean_numbers(outputs: Sequence[Tensor]) -> Tensor:
    """The mean of K teachers' numbers (B, D), a constant."""
    return at_least_float32(torch.stack(tuple(outputs)).detach()).mean(0)


def ensemble_kl(
    student: Tensor, teachers: Sequence[Tensor], temperature: float
) -> Tensor:
    """KL(mean teacher || student) of (B, C) logits, times T^2, in nats: batch mean.

    The teachers are constants.
    """
    kl = F.kl_div(
        F.log_softmax(at_least_float32(student) / temperature, dim=1),
        log_mean_softmax(teachers, temperature),
        reduction="batchmean",
        log_target=True,
    )
    return kl * temperature**2


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
        refuse_fewer_than_two(self, "teachers")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be > 0, not {self.temperature}")
        refuse_negative(self, ("ce_weight", "kd_weight"))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student = at_least_float32(batch.student.logits)
        teachers = [teacher.logits for teacher in batch.teachers]
        if batch.task.kind == "regression":
            kd = F.mse_loss(student, mean_numbers(teachers))
        else:
            kd = ensemble_kl(student, teachers, self.temperature)
        return {
            "ce": self.ce_weight * label_loss(batch.task, student, batch.targets),
            "kd": self.kd_weight * kd,
        }

    def target(self, batch: Batch) -> Tensor:
        total = self.ce_weight + self.kd_weight
        if total == 0:
            raise ValueError("both weights are 0: there is nothing to learn")
        teachers = [teacher.logits for teacher in batch.teachers]
        if batch.task.kind == "regression":
            soft = mean_numbers(teachers)
        else:
            soft = log_mean_softmax(teachers, self.temperature).exp()
        label = label_target(batch.task, batch.targets)
        return (self.ce_weight * label + self.kd_weight * soft) / total
