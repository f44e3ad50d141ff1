"""Logit standardization. Sun et al. 2024, arXiv:2403.01427, algorithms 1 and 2.

zscore(z) = (z - mean_c z) / std_c z, over the classes of each item
loss = ce_weight * CE(z_s, y)
     + kd_weight * T^2 KL(softmax(zscore(z_t) / T) || softmax(zscore(z_s) / T))

The deviation is algorithm 1's, divided by C (the authors' code divides by C - 1).
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy, at_least_float32, label_loss, soft_kl
from kdbench_soft_targets.presets import LOGIT_STANDARDIZATION

VARIANCE_EPS = 1e-10
"""Logits squared; keeps the z-score of equal logits at 0, with a finite gradient."""


def zscore(logits: Tensor) -> Tensor:
    """(B, C) logits with mean 0 and variance 1 over the classes of each item."""
    x = at_least_float32(logits)
    return F.layer_norm(x, x.shape[1:], eps=VARIANCE_EPS)


@dataclass(frozen=True, kw_only=True)
class LogitStandardization(Strategy):
    """Match the softened z-scores of the logits: their shape, not their scale."""

    name = "logit_standardization"
    family = "soft targets"
    paper = "Sun et al. 2024, arXiv:2403.01427"
    presets = LOGIT_STANDARDIZATION

    temperature: float = 2.0  # dimensionless, > 0; authors' code (tuned per pair)
    ce_weight: float = 0.1  # >= 0; authors' code
    kd_weight: float = 9.0  # >= 0, on T^2 KL; authors' code

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = batch.student.logits, batch.teacher.logits
        kd = soft_kl(zscore(student), zscore(teacher), self.temperature)
        return {
            "ce": self.ce_weight * label_loss(batch.task, student, batch.targets),
            "kd": self.kd_weight * kd,
        }
