"""Activation boundaries. Heo et al. 2019, AAAI, arXiv:1811.03233, section 3.

d(s, t) = sum_{chw} max(0, margin - s)^2 where t > 0, max(0, margin + s)^2 elsewhere
first, "ab":  loss = ab_weight * sum_l mean_b d(r_l(s_l), t_l) / 2^(L - 1 - l)
then:         loss = CE

s_l and t_l are the pre-activations of stage l = 0, ..., L - 1, and r_l is a connector
(see preacts). Weights are those of the authors' code for CIFAR: 3 / 1000 on the sum. It
goes on with soft targets; CE alone is the field's comparison.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdbench import KINDS, Batch, Phase, Strategy, Tapped, label_loss
from kdbench_feature_matching.preacts import Connectors, halving, why_no_preacts


def boundary_loss(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """Squared hinge towards the teacher's side of zero: a scalar, mean over the batch.

    Both are (B, ...); all axes but the batch are summed. The teacher is a constant.
    """
    inside = torch.where(teacher.detach() > 0, student, -student)
    return (margin - inside).clamp(min=0).square().sum() / len(student)


@dataclass(frozen=True, kw_only=True)
class ActivationBoundaries(Strategy):
    """Start from weights whose units are active where the teacher's are."""

    name = "ab"
    family = "feature matching"
    paper = "Heo et al. 2019, AAAI, arXiv:1811.03233"
    tasks = KINDS
    taps = ("preacts",)

    margin: float = 1.0  # of the hinge, > 0, in units of the connector's output; paper
    ab_weight: float = 0.003  # >= 0, on the sum over a map; authors' code, CIFAR-10
    ab_epochs: int = 30  # epochs before the recipe's, >= 0; the field's setting

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.margin > 0:
            raise ValueError(f"margin must be > 0, not {self.margin}")

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        return why_no_preacts(student, teacher)

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        return Connectors(student, teacher)

    def phases(self) -> tuple[Phase, ...]:
        return (Phase(name="ab", epochs=self.ab_epochs, constant_lr=True), Phase())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        if batch.phase != "ab":
            return {"ce": label_loss(batch.task, batch.student.logits, batch.targets)}
        assert batch.adapters is not None  # noqa: S101 (built by adapters() above)
        pairs = batch.adapters(batch.student, batch.teacher)
        losses = [boundary_loss(s, t, self.margin) for s, t in pairs]
        return {"boundary": self.ab_weight * halving(losses)}
