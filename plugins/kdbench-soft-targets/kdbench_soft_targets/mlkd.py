"""Multi-level logit distillation. Jin, Wang & Lin 2023, CVPR, section 3.

With P = softmax(z / T) (B, C), for each T in TEMPERATURES, and two views of a batch:
loss = ce_weight * sum_views CE + kd_weight * sum_views sum_T T^2 KL(P_t || P_s)
     + batch_weight * sum_T ||P_s P_s^T - P_t P_t^T||_F^2 / B
     + class_weight * sum_T ||P_s^T P_s - P_t^T P_t||_F^2 / C

The Gram terms are of the weak (plain) view, as in the authors' code. Not as in it: its
masks of the less confident half of items and classes multiply means that are already
scalars, so they only scale, each weak KL and Gram term by about 1/2 (the paper's three
levels have none); and its KL at T = 2 and 6 of the strong view is the weak one's.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy, at_least_float32, label_loss, soft_kl

TEMPERATURES = (2.0, 3.0, 4.0, 5.0, 6.0)  # dimensionless; authors' code


def gram_losses(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Batch-level and class-level losses (2,) of (B, C) logits; teacher constant."""
    p = F.softmax(at_least_float32(student) / temperature, dim=1)
    q = F.softmax(at_least_float32(teacher.detach()) / temperature, dim=1)
    batch = (p @ p.T - q @ q.T).square().sum() / p.shape[0]
    classes = (p.T @ p - q.T @ q).square().sum() / p.shape[1]
    return torch.stack((batch, classes))


@dataclass(frozen=True, kw_only=True)
class MultiLevelLogit(Strategy):
    """Match predictions, and how items and classes relate, at several temperatures."""

    name = "mlkd"
    family = "soft targets"
    paper = "Jin et al. 2023, CVPR"
    views = ("strong",)

    ce_weight: float = 0.1  # >= 0, on either view; authors' code
    kd_weight: float = 9.0  # >= 0, on T^2 KL; Sun et al. 2024's code (authors: 0.9)
    batch_weight: float = 9.0  # >= 0; as kd_weight, which the authors share
    class_weight: float = 9.0  # >= 0; as kd_weight, which the authors share

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        both = batch, batch.views["strong"]
        views = [(view.students[0].logits, view.teachers[0].logits) for view in both]
        ce = [label_loss(batch.task, a, batch.targets) for a, _ in views]
        kd = [soft_kl(a, b, T) for a, b in views for T in TEMPERATURES]
        grams = torch.stack([gram_losses(*views[0], T) for T in TEMPERATURES]).sum(0)
        return {
            "ce": self.ce_weight * torch.stack(ce).sum(),
            "kd": self.kd_weight * torch.stack(kd).sum(),
            "batch": self.batch_weight * grams[0],
            "class": self.class_weight * grams[1],
        }
