"""Relational knowledge distillation. Park et al. 2019, arXiv:1904.05068, sec. 3.2.

distance(i, j) = ||e_i - e_j|| / mean of the non-zero distances in the batch
angle(i, j, k) = <unit(e_i - e_j), unit(e_k - e_j)>
loss = ce_weight * CE + distance_weight * mean_{ij} h(distance_s - distance_t)
     + angle_weight * mean_{ijk} h(angle_s - angle_t), with h the smooth L1 (Huber, 1)

e is the pooled vector. Means are over all B^2 pairs and B^3 triplets, those of repeated
items (0 on both sides) included, as in the authors' code. Items that coincide have no
direction: their angles are 0, without gradient.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import KINDS, Batch, Strategy, at_least_float32, label_loss
from kdbench_feature_matching.geometry import angles, differences, distances


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
