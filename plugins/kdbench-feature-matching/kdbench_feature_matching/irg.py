"""Instance relationship graph. Liu et al. 2019, CVPR, section 3.

A_l(i, j) = ||f_l(i) - f_l(j)||^2 / max, the edges between items i, j at layer l
V_l(i) = ||g_l(i) - g_{l+1}(i)||^2 / max, how item i changes from stage l to the next
loss = ce_weight * CE + vertex_weight * mean (z_s - z_t)^2
     + edge_weight * mean_{l in the student's last three} mean_{ij} (A_l - A_T)^2
     + transformation_weight * mean_l mean_i (V_l of student - of teacher)^2

z are logits, f flattened features, A_T the teacher's edges at "pooled"; the student's
layers are its stages and "pooled". The authors leave out how edges change: it costs too
much. g is a stage averaged over positions, as in their code, which compares layers in a
stage; ours are neighbouring stages, the wider averaged over neighbouring channels. They
sum squares, with weights of 0.005 in their code; means and the weights that belong to
them are the field's (Knowledge-Distillation-Zoo).
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench import (
    KINDS,
    Batch,
    Outputs,
    Strategy,
    Tapped,
    at_least_float32,
    label_loss,
)
from kdbench_feature_matching.geometry import SHORTEST, as_rows, gram
from kdbench_feature_matching.goals import Goal, stage_goals
from kdbench_feature_matching.matching import match_stages, why_no_stages


def over_largest(distance: Tensor) -> Tensor:
    """Distances over the largest of them; where that is 0 they stay 0."""
    largest = distance.max()
    return distance / torch.where(largest > SHORTEST, largest, math.inf)


def edges(layer: Tensor) -> Tensor:
    """(B, B) squared distances between the items of (B, ...) features, in [0, 1]."""
    rows = as_rows(layer)
    products = gram(rows - rows.mean(dim=0))  # distances stay, rounding is less
    squares = products.diagonal()
    distance = squares + squares[:, None] - 2 * products
    return over_largest(distance.clamp(min=0))


def changes(earlier: Tensor, later: Tensor) -> Tensor:
    """(B,) squared distances of each item to itself a stage later, in [0, 1].

    Stages are (B, C, H, W) or (B, C).
    """
    a, b = (at_least_float32(x)[..., None].flatten(2).mean(2) for x in (earlier, later))
    width = min(a.shape[1], b.shape[1])
    a, b = F.adaptive_avg_pool1d(a, width), F.adaptive_avg_pool1d(b, width)
    return over_largest((a - b).square().sum(dim=1))


def changes_of(teacher: Outputs, earlier: str, later: str) -> Tensor:
    """`changes` between two taps of a teacher."""
    return changes(teacher.features[earlier], teacher.features[later])


@dataclass(frozen=True, kw_only=True)
class InstanceRelationshipGraph(Strategy):
    """Match outputs, distances between items, and their changes between stages."""

    name = "irg"
    family = "feature matching"
    paper = "Liu et al. 2019, CVPR"
    tasks = KINDS
    taps = ("stages", "pooled")

    ce_weight: float = 1.0  # >= 0; paper
    vertex_weight: float = 0.1  # >= 0, on the mean square; the field's CIFAR setting
    edge_weight: float = 5.0  # >= 0, on the mean square; the field's CIFAR setting
    transformation_weight: float = 5.0  # >= 0, on the mean square; the field's setting

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        if len(student.stages) == 1:
            return f"{student.name} has one stage only: nothing is transformed"
        reason = why_no_stages(student, teacher)
        if reason or teacher is None:
            return reason
        for names in match_stages(student.stages, teacher.stages):
            for model, stage in zip((student, teacher), names, strict=True):
                shape = model.stages[stage]
                if len(shape) not in (1, 3):
                    return (
                        f"{stage} of {model.name} is neither a vector (D,) nor a map "
                        f"(C, H, W): {shape}"
                    )
        return None

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = batch.student, batch.teacher
        stages = stage_goals(batch)
        layers = [*(s for s, _ in stages), student.features["pooled"]][-3:]
        wanted = Goal(teacher, "pooled").once(edges)
        edge = [F.mse_loss(edges(layer), wanted) for layer in layers]
        change = [
            F.mse_loss(changes(s, next_s), teacher.once(changes_of, t.tap, next_t.tap))
            for (s, t), (next_s, next_t) in pairwise(stages)
        ]
        z_s = at_least_float32(student.logits)
        vertex = F.mse_loss(z_s, at_least_float32(teacher.logits.detach()))
        ce = label_loss(batch.task, student.logits, batch.targets)
        return {
            "ce": self.ce_weight * ce,
            "vertex": self.vertex_weight * vertex,
            "edge": self.edge_weight * torch.stack(edge).mean(),
            "transformation": self.transformation_weight * torch.stack(change).mean(),
        }
