"""Confident pseudo-labels. Lee 2013, ICML Workshop on Challenges in Representation
Learning, equations 15-16; Sohn et al. 2020 (FixMatch), arXiv:2001.07685, equations 3-4.

loss = ce_weight * mean_labelled CE(z_s, y)
     + pseudo_weight * ramp_up
       * mean_unlabelled 1[max_c p_t >= threshold] CE(z_s, argmax_c p_t)

The second mean is over all unlabelled items, kept or not (Sohn, equation 4). Only the
threshold is FixMatch's: there are no two views, and a trained teacher gives the labels.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy
from kdbench_pseudo_label.precision import at_least_float32
from kdbench_pseudo_label.ranges import refuse_negative


def semi_supervised_losses(
    student: Tensor,
    teacher: Tensor,
    targets: Tensor,
    labelled: Tensor,
    threshold: float,
) -> tuple[Tensor, Tensor]:
    """Labelled and confident pseudo-label cross-entropy, in nats: two scalars.

    `student` and `teacher` are (B, C) logits; `targets` (B,) class indices, read where
    `labelled` (B,) bool. A mean over no items is 0.
    """
    p_teacher = F.softmax(at_least_float32(teacher.detach()), dim=1)
    confidence, label = p_teacher.max(dim=1)
    chosen = targets.where(labelled, label)
    each = F.cross_entropy(at_least_float32(student), chosen, reduction="none")
    kept = ~labelled & (confidence >= threshold)
    of_labelled = (each * labelled).sum() / labelled.sum().clamp(min=1)
    of_unlabelled = (each * kept).sum() / (~labelled).sum().clamp(min=1)
    return of_labelled, of_unlabelled


@dataclass(frozen=True, kw_only=True)
class ConfidentPseudoLabel(Strategy):
    """Few labels, plus the teacher's labels where it is confident."""

    name = "confident_pseudo_label"
    family = "pseudo-label"
    paper = "Lee 2013, ICML Workshop; Sohn et al. 2020, arXiv:2001.07685"

    label_fraction: float = 0.1  # share of the labels used, (0, 1]; our benchmark's
    threshold: float = 0.95  # teacher probability, [0, 1]; Sohn et al., tau
    ce_weight: float = 1.0  # >= 0, on labelled items; Sohn et al.
    pseudo_weight: float = 1.0  # >= 0, on unlabelled items; Sohn et al. (Lee: 3)
    ramp: float = 0.1  # share of training, [0, 1]; ours (Lee: epochs 100-600; Sohn: 0)

    def __post_init__(self) -> None:
        if not 0 < self.label_fraction <= 1:
            given = self.label_fraction
            raise ValueError(f"label_fraction must be in (0, 1], not {given}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be in [0, 1], not {self.threshold}")
        if not 0 <= self.ramp <= 1:
            raise ValueError(f"ramp must be in [0, 1], not {self.ramp}")
        refuse_negative(self, ("ce_weight", "pseudo_weight"))

    def ramp_up(self, progress: float) -> float:
        """Factor on the pseudo-labels: linear from 0 to 1, as Lee's equation 16."""
        return min(1.0, progress / self.ramp) if self.ramp else 1.0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        labelled, unlabelled = semi_supervised_losses(
            batch.student.logits,
            batch.teacher.logits,
            batch.targets,
            batch.labelled,
            self.threshold,
        )
        pseudo_weight = self.pseudo_weight * self.ramp_up(batch.progress)
        return {"ce": self.ce_weight * labelled, "pseudo": pseudo_weight * unlabelled}
