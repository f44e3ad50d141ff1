"""Logit matching. Ba & Caruana 2014, arXiv:1312.6184, equation 1; Kim et al. 2021,
arXiv:2105.08919.

loss = ce_weight * CE(z_s, y) + mse_weight * mean_{b,c} (z_s - z_t)^2

The mean over classes makes the weight comparable between data sets. For centred logits
it is twice the limit of T^2 KL as T grows (Hinton et al. 2015, equation 4). In a
regression the "logits" are the numbers themselves, and CE is their squared error.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import KINDS, Batch, Strategy, at_least_float32, label_loss
from kdbench_soft_targets.targets import mixed_target


def logit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of (B, C) logits, mean over batch and classes: a scalar."""
    return F.mse_loss(at_least_float32(student), at_least_float32(teacher.detach()))


@dataclass(frozen=True, kw_only=True)
class LogitMSE(Strategy):
    """Match the teacher's logits themselves, without a softmax."""

    name = "logit_mse"
    family = "soft targets"
    paper = "Ba & Caruana 2014, arXiv:1312.6184; Kim et al. 2021, arXiv:2105.08919"
    tasks = KINDS

    ce_weight: float = 0.1  # >= 0; our choice, kd's (Ba & Caruana use 0); tune
    mse_weight: float = 0.9  # >= 0; our choice, kd's: no published default; tune

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student = batch.student.logits
        return {
            "ce": self.ce_weight * label_loss(batch.task, student, batch.targets),
            "mse": self.mse_weight * logit_mse(student, batch.teacher.logits),
        }

    def target(self, batch: Batch) -> Tensor:
        return mixed_target(batch, self.ce_weight, self.mse_weight)
