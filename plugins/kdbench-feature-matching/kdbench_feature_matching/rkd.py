"""Relational knowledge distillation. Park et al. 2019, arXiv:1904.05068, section
3.2.

distance(i, j) = ||e_i - e_j|| / mean of the non-zero distances in the batch
angle(i, j, k) = <unit(e_i - e_j), unit(e_k - e_j)>
loss = ce_weight * CE + distance_weight * mean_{ij} h(distance_s - distance_t)
     + angle_weight * mean_{ijk} h(angle_s - angle_t), with h the smooth L1 (Huber, 1)

e is the pooled vector. Means are over all B^2 pairs and B^3 triplets, those of repeated
items (0 on both sides) included, as in the authors' code. Items that coincide have no
direction: their angles are 0, without gradient.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench import KINDS, Batch, Strategy, Tapped, label_loss
from kdbench_feature_matching.geometry import SHORTEST, at_least_float32, unit
from kdbench_feature_matching.matching import lacks
from kdbench_feature_matching.ranges import refuse_negative


def differences(vectors: Tensor) -> Tensor:
    """All pairs' differences (B, B, D) of (B, D) vectors: [i, j] is e_j - e_i."""
    return vectors - vectors[:, None]


def distances(difference: Tensor) -> Tensor:
    """Distances (B, B) over their mean, from differences (B, B, D); dimensionless."""
    distance: Tensor = torch.linalg.vector_norm(difference, dim=2)
    pairs = (distance > SHORTEST).sum().clamp(min=1)
    mean = distance.sum() / pairs
    return distance / torch.where(mean > SHORTEST, mean, math.inf)


def angles(difference: Tensor) -> Tensor:
    """Cosines (B, B, B) of the angles at item j, [j, i, k], from differences."""
    direction = unit(difference, dim=2)
    return direction @ direction.transpose(1, 2)


def relation_losses(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Distance loss and angle loss of two (B, D) vectors: two scalars.

    D may differ. The teacher is a constant.
    """
    of_student = differences(at_least_float32(student).flatten(1))
    of_teacher = differences(at_least_float32(teacher.detach()).flatten(1))
    distance = F.smooth_l1_loss(distances(of_student), distances(of_teacher))
    return distance, F.smooth_l1_loss(angles(of_student), angles(of_teacher))


@dataclass(frozen=True, kw_only=True)
class RelationalKD(Strategy):
    """Match the distances and angles between the items of the batch."""

    name = "rkd"
    family = "feature matching"
    paper = "Park et al. 2019, arXiv:1904.05068"
    tasks = KINDS
    taps = ("pooled",)

    ce_weight: float = 1.0  # >= 0; paper
    distance_weight: float = 25.0  # >= 0; paper, classification
    angle_weight: float = 50.0  # >= 0; paper, classification

    def __post_init__(self) -> None:
        refuse_negative(self, ("ce_weight", "distance_weight", "angle_weight"))

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        return lacks("pooled", student, teacher)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        distance, angle = relation_losses(
            batch.student.features["pooled"], batch.teacher.features["pooled"]
        )
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {
            "ce": self.ce_weight * ce,
            "distance": self.distance_weight * distance,
            "angle": self.angle_weight * angle,
        }
