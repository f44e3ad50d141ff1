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

from kdbench import KINDS, Batch, Strategy, label_loss
from kdbench_feature_matching.geometry import relations
from kdbench_feature_matching.goals import Goal, pooled_goal


def relation_losses(student: Tensor, teacher: Goal) -> tuple[Tensor, Tensor]:
    """Distance loss and angle loss of two (B, D) vectors: two scalars; D may differ."""
    distances, angles = relations(student)
    wanted_distances, wanted_angles = teacher.once(relations)
    distance = F.smooth_l1_loss(distances, wanted_distances)
    return distance, F.smooth_l1_loss(angles, wanted_angles)


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
        distance, angle = relation_losses(*pooled_goal(batch))
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {
            "ce": self.ce_weight * ce,
            "distance": self.distance_weight * distance,
            "angle": self.angle_weight * angle,
        }
