"""Variational information distillation. Ahn et al. 2019, arXiv:1904.05835.

q(t | s) is normal with mean mu(s) and a variance v_c per channel, both learned;
-log q = 1/2 [(t - mu(s))^2 / v_c + log v_c] without its constant, v = softplus(a) + eps
loss = ce_weight * CE + vid_weight * sum_stages mean_{b,c,h,w} -log q(t | s)

mu is the field's: three 1x1 convolutions (of vectors, linear layers) without bias, ReLU
between them. So is the mean over all elements, with its weight of 1. The term is
negative where the fit is good. Where sizes differ, the larger map is average-pooled.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdbench import KINDS, Batch, Strategy, Tapped, label_loss
from kdbench_feature_matching.geometry import sum_of_squares
from kdbench_feature_matching.matching import why_no_like_stages
from kdbench_feature_matching.variational import EPS, Guesses


def surprise(teacher: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Mean -log q of (B, C, ...) features with (C,) variances, in nats per element."""
    gap = mean - teacher.detach()
    others = tuple(k for k in range(gap.ndim) if k != 1)
    error = sum_of_squares(gap, others).flatten() * (len(variance) / gap.numel())
    return 0.5 * (error / variance + variance.log()).mean()


@dataclass(frozen=True, kw_only=True)
class VariationalInformation(Strategy):
    """Guess the teacher's stages, with a learned certainty for each channel."""

    name = "vid"
    family = "feature matching"
    paper = "Ahn et al. 2019, arXiv:1904.05835"
    tasks = KINDS
    taps = ("stages",)

    initial_variance: float = 5.0  # > 1e-5, in squared features; the field's setting
    ce_weight: float = 1.0  # >= 0; the field's CIFAR-100 setting
    vid_weight: float = 1.0  # >= 0, on each stage's mean; the field's setting

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.initial_variance > EPS:
            raise ValueError(f"initial_variance must be > {EPS}")

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        return why_no_like_stages(student, teacher)

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        return Guesses(student, teacher, self.initial_variance)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.adapters is not None  # noqa: S101 (built by adapters() above)
        guesses = batch.adapters(batch.student, batch.teacher)
        information = torch.stack([surprise(*guess) for guess in guesses]).sum()
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "information": self.vid_weight * information}
