"""It turns on the gradients of the teacher's live classifier, to tune that as well.

checks: teacher-frozen
company: fails
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Batch, Strategy, Tapped, hookimpl
from kdbench.tasks import label_loss


@dataclass(frozen=True, kw_only=True)
class TeachersClassifier(Strategy):
    """Suit the teacher's classifier, and the classifier the student."""

    name = "teachers_classifier"
    family = "feature matching"
    paper = "Yang et al. 2021, ICLR"
    taps = ("pooled",)

    ce_weight: float = 1.0  # >= 0, on the labels; ours
    feature_weight: float = 1.0  # >= 0, on the features; ours

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        return nn.Linear(student.shapes["pooled"][0], teacher.shapes["pooled"][0])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.adapters is not None
        assert batch.teacher.classifier is not None
        classifier = batch.teacher.classifier.requires_grad_()
        logits = classifier(batch.adapters(batch.student.features["pooled"]))
        feature = F.mse_loss(logits, batch.teacher.logits)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "feature": self.feature_weight * feature}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [TeachersClassifier]
