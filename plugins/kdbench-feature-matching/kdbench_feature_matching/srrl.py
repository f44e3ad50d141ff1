"""Softmax regression representation learning. Yang et al. 2021, ICLR (openreview
ZzwDy_wiWv), section 3.

f = relu(BN(A f_s)), the student's pooled f_s (B, D) led to the teacher's width
loss = ce_weight * CE + feature_weight * mean (f - f_t)^2
     + regression_weight * mean (V f + v - z_t)^2

V and v are the teacher's frozen classifier, z_t its logits; means are over items and
features or classes. Means and weights are those of the authors' ImageNet code, which
averages maps after A, BN and ReLU; the field (CIFAR-100) and we before: so vectors fit.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Batch, Outputs, Strategy, Tapped, at_least_float32, label_loss
from kdbench_feature_matching.heads import why_no_head
from kdbench_feature_matching.maps import as_map, connector


def regression_losses(feature: Tensor, teacher: Outputs) -> tuple[Tensor, Tensor]:
    """Mean squares of features (B, D) and of their logits (B, C), to the teacher's."""
    assert teacher.classifier is not None  # noqa: S101 (supports() saw it)
    pooled, logits = teacher.features["pooled"].detach(), teacher.logits.detach()
    regressed = F.mse_loss(teacher.classifier(feature), at_least_float32(logits))
    return F.mse_loss(feature, at_least_float32(pooled)), regressed


@dataclass(frozen=True, kw_only=True)
class SoftmaxRegression(Strategy):
    """Make the student's features give the teacher's logits in its own classifier."""

    name = "srrl"
    family = "feature matching"
    paper = "Yang et al. 2021, ICLR"
    taps = ("pooled",)

    ce_weight: float = 1.0  # >= 0; authors' code
    feature_weight: float = 1.0  # >= 0, the paper's alpha; authors' code
    regression_weight: float = 1.0  # >= 0, the paper's beta; authors' code

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:  # noqa: ARG002
        return why_no_head(teacher)

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        return connector(student.shapes["pooled"][0], teacher.shapes["pooled"][0])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.adapters is not None  # noqa: S101 (built by adapters() above)
        pooled = as_map(at_least_float32(batch.student.features["pooled"]))
        matched, regressed = regression_losses(batch.adapters(pooled), batch.teacher)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {
            "ce": self.ce_weight * ce,
            "feature": self.feature_weight * matched,
            "regression": self.regression_weight * regressed,
        }
