"""Flow of the solution procedure. Yim et al. 2017, CVPR, equations 1 and 2.

G_k(i, j) = 1 / (h w) sum_{xy} F_k(i, x, y) F_{k+1}(j, x, y), for each item
first, "fsp":  loss = fsp_weight * sum_k mean_{b,i,j} (G_k of student - of teacher)^2
then:          loss = CE

F_k (C, H, W) is stage k, max-pooled to the h x w of the next one, as in the paper; the
field's form pools the mean. The paper sums over (i, j); the mean is the field's. The
paper's flows run from the first to the last layer of a stage, the field's and ours from
stage to stage (the field counts the stem as one).
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench import (
    KINDS,
    Batch,
    Outputs,
    Phase,
    Strategy,
    Tapped,
    at_least_float32,
    label_loss,
)
from kdbench_feature_matching.matching import matched_stages, stage_shapes, why_no_maps


def flow(earlier: Tensor, later: Tensor) -> Tensor:
    """(B, C, D) products of two stages' channels: of (B, C, H, W) and (B, D, h, w)."""
    earlier, later = at_least_float32(earlier), at_least_float32(later)
    if earlier.shape[2:] != later.shape[2:]:
        earlier = F.adaptive_max_pool2d(earlier, later.shape[2:])
    return earlier.flatten(2) @ later.flatten(2).mT / later[0, 0].numel()


def flow_of(model: Outputs, earlier: str, later: str) -> Tensor:
    """`flow` between two taps of a model."""
    return flow(model.features[earlier], model.features[later])


def flow_loss(student: Outputs, teacher: Outputs) -> Tensor:
    """Mean square difference of the flows, summed over neighbouring stages: a scalar.

    Matched stages are maps of equal channels.
    """
    losses = [
        F.mse_loss(flow_of(student, s, next_s), teacher.once(flow_of, t, next_t))
        for (s, t), (next_s, next_t) in pairwise(matched_stages(student, teacher))
    ]
    return torch.stack(losses).sum()


@dataclass(frozen=True, kw_only=True)
class SolutionFlow(Strategy):
    """Start from weights that match how features flow from stage to stage."""

    name = "fsp"
    family = "feature matching"
    paper = "Yim et al. 2017, CVPR"
    tasks = KINDS
    taps = ("stages",)

    fsp_weight: float = 1.0  # >= 0, on the sum of mean squares; the field's setting
    fsp_epochs: int = 30  # epochs before the recipe's, >= 0; the field's setting

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        reason = why_no_maps(student, teacher)
        if reason or teacher is None:
            return reason
        if len(student.stages) < 2:
            return f"{student.name} has one stage only: nothing flows"
        for s, t in stage_shapes(student, teacher):
            if s[0] != t[0]:
                return f"stages must be equally wide in both models: {s} and {t}"
        return None

    def phases(self) -> tuple[Phase, ...]:
        return (Phase(name="fsp", epochs=self.fsp_epochs, constant_lr=True), Phase())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        if batch.phase != "fsp":
            return {"ce": label_loss(batch.task, batch.student.logits, batch.targets)}
        flows = flow_loss(batch.student, batch.teacher)
        return {"flow": self.fsp_weight * flows}
