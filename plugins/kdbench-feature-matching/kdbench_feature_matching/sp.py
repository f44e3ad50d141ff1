"""Similarity-preserving KD. Tung & Mori 2019, arXiv:1907.09682, section 3.1.

G(A) = A A^T with each row scaled to unit length, for features A flattened to (B, D)
loss = ce_weight * CE + sp_weight * ||G(A_t) - G(A_s)||_F^2 / B^2

A is the last stage of either model, as in the paper's experiments; other stages are
left alone, so stage counts and shapes may differ.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import KINDS, Batch, Strategy, Tapped, label_loss
from kdbench_feature_matching.geometry import as_rows, gram, unit
from kdbench_feature_matching.goals import Goal
from kdbench_feature_matching.matching import stage_features


def similarity(feature: Tensor) -> Tensor:
    """(B, B) similarities of the items of a (B, ...) feature; rows of unit length."""
    return unit(gram(as_rows(feature)), dim=1)


def similarity_loss(student: Tensor, teacher: Goal) -> Tensor:
    """Squared Frobenius distance of the two similarities / B^2: a scalar.

    Features are (B, ...); their other axes may differ.
    """
    return F.mse_loss(similarity(student), teacher.once(similarity))


@dataclass(frozen=True, kw_only=True)
class SimilarityPreserving(Strategy):
    """Match which items of the batch resemble each other in the last stage."""

    name = "sp"
    family = "feature matching"
    paper = "Tung & Mori 2019, arXiv:1907.09682"
    tasks = KINDS
    taps = ("stages",)

    ce_weight: float = 1.0  # >= 0; paper
    sp_weight: float = 3000.0  # >= 0; paper, CIFAR-10 (its gamma)

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        if teacher is None:
            return "there is no teacher"
        bare = [model.name for model in (student, teacher) if not model.stages]
        return f"{bare[0]} has no stages" if bare else None

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        *_, student = stage_features(batch.student).values()
        *_, teacher = stage_features(batch.teacher)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        gap = similarity_loss(student, Goal(batch.teacher, teacher))
        return {"ce": self.ce_weight * ce, "similarity": self.sp_weight * gap}
