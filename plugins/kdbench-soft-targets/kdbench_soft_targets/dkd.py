"""Decoupled knowledge distillation. Zhao et al. 2022, arXiv:2203.08679, equations 5-7.

The softened KL splits into TCKD + (1 - p_t) NCKD: p_t is the teacher's probability of
the true class, TCKD the KL of (true class, the rest), NCKD the KL within the rest.
DKD weighs the two apart:
loss = ce_weight * CE
     + T^2 * warm_up * (target_weight * TCKD + non_target_weight * NCKD)
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy
from kdbench_soft_targets.divergence import at_least_float32
from kdbench_soft_targets.ranges import refuse_bad_temperature, refuse_negative


def _split(logits: Tensor, true_class: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of (true class, rest) (B, 2) and within the rest (B, C)."""
    # Finite, so that 0 * (hidden - hidden) is 0 and not nan.
    hidden = torch.finfo(logits.dtype).min / 2
    rest = logits.masked_fill(true_class, hidden)
    true = logits.masked_fill(~true_class, 0).sum(dim=1)
    # p_true / p_rest = exp(z_true) / sum exp(z_rest): a softmax over two logits.
    binary = torch.stack((true, rest.logsumexp(dim=1)), dim=1)
    return F.log_softmax(binary, dim=1), F.log_softmax(rest, dim=1)


def dkd_losses(
    student: Tensor, teacher: Tensor, targets: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """T^2 TCKD and T^2 NCKD, in nats: two scalars, means over the batch.

    `student` and `teacher` are (B, C) logits with C >= 2, `targets` (B,) class indices.
    The teacher is a constant.
    """
    classes = torch.arange(student.shape[1], device=student.device)
    true_class = targets[:, None] == classes  # (B, C)
    of_student = _split(at_least_float32(student) / temperature, true_class)
    of_teacher = _split(at_least_float32(teacher.detach()) / temperature, true_class)
    target, non_target = (
        F.kl_div(s, t, reduction="batchmean", log_target=True) * temperature**2
        for s, t in zip(of_student, of_teacher, strict=True)
    )
    return target, non_target


@dataclass(frozen=True, kw_only=True)
class DecoupledKD(Strategy):
    """Soft targets, with the true class and the other classes weighed apart."""

    name = "dkd"
    family = "soft targets"
    paper = "Zhao et al. 2022, arXiv:2203.08679"

    temperature: float = 4.0  # dimensionless, > 0; paper, CIFAR-100
    ce_weight: float = 1.0  # >= 0; paper
    target_weight: float = 1.0  # >= 0, the paper's alpha; paper
    non_target_weight: float = 8.0  # >= 0, the paper's beta; authors: 2, 6, 8 by pair
    warmup_epochs: int = 20  # epochs, >= 0, 0 for none; authors' code, CIFAR-100

    def __post_init__(self) -> None:
        refuse_bad_temperature(self.temperature)
        weights = ("ce_weight", "target_weight", "non_target_weight")
        refuse_negative(self, (*weights, "warmup_epochs"))

    def warm_up(self, epoch: float) -> float:
        """Factor on both KL terms: (1, 2, ...) / warmup_epochs, at most 1."""
        return min(1.0, (math.floor(epoch) + 1) / max(self.warmup_epochs, 1))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, targets = at_least_float32(batch.student.logits), batch.targets
        target, non_target = dkd_losses(
            student, batch.teacher.logits, targets, self.temperature
        )
        warm_up = self.warm_up(batch.epoch)
        return {
            "ce": self.ce_weight * F.cross_entropy(student, targets),
            "target": warm_up * self.target_weight * target,
            "non_target": warm_up * self.non_target_weight * non_target,
        }
