"""Overhaul of feature distillation. Heo et al. 2019, ICCV, arXiv:1904.01866, section 3.

m_c = E[x | x < 0] for x ~ N(beta_c, gamma_c^2);  t' = max(t, m_c), the margin ReLU
d(s, t') = sum_{chw} (s - t')^2, of which s <= t' <= 0 counts nothing
loss = ce_weight * CE + ofd_weight * sum_l mean_b d(r_l(s_l), t_l') / 2^(L - 1 - l)

s_l and t_l are the pre-activations of stage l = 0, ..., L - 1, r_l is a connector (see
preacts), beta and gamma those of the teacher's last batch norm before t_l. Where a
shortcut is added to that, the margin leaves it out, as the authors' does. Their code
has m_c = -3 |gamma| where P(x < 0) <= 0.001; here the paper's expectation always holds.
It also keeps the teacher's batch norm in train mode; here the teacher is frozen.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdbench import KINDS, Batch, Strategy, Tapped, label_loss
from kdbench_feature_matching import preacts
from kdbench_feature_matching.geometry import SHORTEST


def expected_negative(mean: Tensor, deviation: Tensor) -> Tensor:
    """E[x | x < 0] of normal x, of any shape: never above 0."""
    width = deviation.double().abs().clamp(min=SHORTEST)
    # phi(z) / Phi(-z) at z = mean / width: neither overflows nor divides 0 by 0
    z = mean.double() / width
    hazard = math.sqrt(2 / math.pi) / torch.special.erfcx(z / math.sqrt(2))
    return torch.clamp(mean - width * hazard, max=0).to(mean.dtype)


def partial_loss(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """Partial squared distance of (B, C, ...) features: a scalar, mean over the batch.

    `margin` is (C, ...) with ones; all axes but the batch are summed. The teacher is a
    constant.
    """
    target = torch.maximum(teacher.detach(), margin)
    counts = (student > target) | (target > 0)
    return (student - target).square().where(counts, 0).sum() / len(student)


@dataclass(frozen=True, kw_only=True)
class FeatureOverhaul(Strategy):
    """Match what the teacher's pre-activations say, not how negative they are."""

    name = "ofd"
    family = "feature matching"
    paper = "Heo et al. 2019, ICCV, arXiv:1904.01866"
    tasks = KINDS
    taps = ("preacts",)

    ce_weight: float = 1.0  # >= 0; paper
    ofd_weight: float = 0.001  # >= 0, on the sum over a map; authors' code, CIFAR-100

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        reason = preacts.why_no_preacts(student, teacher)
        if reason or teacher is None:
            return reason
        for _, tap in preacts.matched(student, teacher):
            if preacts.norm_before(teacher, tap) is None:
                return f"{tap} of {teacher.name} follows no batch norm of its channels"
        return None

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        connectors = preacts.Connectors(student, teacher)
        for k, (_, tap) in enumerate(connectors.pairs):
            norm = preacts.norm_before(teacher, tap)
            assert norm is not None  # noqa: S101 (supports() has seen it)
            margin = expected_negative(norm.bias.detach(), norm.weight.detach())
            ones = [1 for _ in teacher.shapes[tap][1:]]
            connectors.register_buffer(f"margin{k}", margin.reshape(-1, *ones))
        return connectors

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.adapters is not None  # noqa: S101 (built by adapters() above)
        losses = [
            partial_loss(student, teacher, batch.adapters.get_buffer(f"margin{k}"))
            for k, (student, teacher) in enumerate(
                batch.adapters(batch.student, batch.teacher)
            )
        ]
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        partial = preacts.halving(losses)
        return {"ce": self.ce_weight * ce, "partial": self.ofd_weight * partial}
