"""The student learns through the classifier of the assistant, which it does not freeze.

checks: gradients
company: finishes
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Phase, Strategy, hookimpl
from kdbench.tasks import label_loss


@dataclass(frozen=True, kw_only=True)
class PeersClassifier(Strategy):
    """An assistant learns, then the student learns to suit its classifier."""

    name = "peers_classifier"
    family = "feature matching"
    paper = "Mirzadeh et al. 2020, arXiv:1902.03393"
    taps = ("pooled",)
    assistants = 1

    ce_weight: float = 1.0  # >= 0, on the labels; ours
    feature_weight: float = 1.0  # >= 0, on the features; ours

    def phases(self) -> tuple[Phase, ...]:
        return (
            Phase(name="assistant", students=(1,), teachers=(0,)),
            Phase(students=(0,), teachers=(), peers=(1,)),
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = batch.student, batch.teacher
        ce = label_loss(batch.task, student.logits, batch.targets)
        feature = F.mse_loss(student.logits, teacher.logits)
        if teacher.classifier is not None and batch.phase != "assistant":
            own = student.features["pooled"]
            width = teacher.classifier.in_features
            wide = F.interpolate(own[:, None], width)[:, 0]
            feature = F.mse_loss(teacher.classifier(wide), teacher.logits)
        return {"ce": self.ce_weight * ce, "feature": self.feature_weight * feature}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [PeersClassifier]
