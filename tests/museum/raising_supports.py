"""`supports` raises where a model has no maps, instead of saying so.

checks: cross-family
company: finishes
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy, Tapped, hookimpl
from kdbench.tasks import label_loss


@dataclass(frozen=True, kw_only=True)
class RaisingSupports(Strategy):
    """Match where the last maps are active."""

    name = "raising_supports"
    family = "feature matching"
    paper = "Zagoruyko & Komodakis 2017, arXiv:1612.03928"
    taps = ("stages",)

    ce_weight: float = 1.0  # >= 0, on the labels; ours
    feature_weight: float = 1.0  # >= 0, on the features; ours

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        for model in (student, teacher):
            if model is not None:
                *_, (_, height, width) = model.stages.values()
                if height * width < 2:
                    return f"the last stage of {model.name} has no positions"
        return None

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        *_, student = batch.student.features.values()
        *_, teacher = batch.teacher.features.values()
        own, wanted = (x.square().mean(1) for x in (student, teacher))
        own = F.adaptive_avg_pool2d(own, wanted.shape[1:])
        feature = F.mse_loss(own, wanted)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "feature": self.feature_weight * feature}


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [RaisingSupports]
