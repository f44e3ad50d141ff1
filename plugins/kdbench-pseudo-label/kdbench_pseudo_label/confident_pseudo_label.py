"""Confident pseudo-labels. Lee 2013, ICML Workshop on Challenges in Representation
Learning, equations 15-16; Sohn et al. 2020 (FixMatch), arXiv:2001.07685, equations 3-4.

loss = ce_weight * mean_labelled CE(z_s, y) + pseudo_weight * ramp_up
       * mean_unlabelled 1[max_c p_t >= threshold] CE(z_s, argmax_c p_t)

The second mean is over all unlabelled items; the ramp is linear. Only the threshold is
FixMatch's: there is one view, and a trained teacher gives the labels.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy, at_least_float32
from kdbench_pseudo_label.semi_supervised import masked_mean, ramp_up, refuse_bad_shares


def confident_losses(
    student: Tensor, teacher: Tensor, targets: Tensor, labelled: Tensor, least: float
) -> tuple[Tensor, Tensor]:
    """Labelled and confident pseudo-label cross-entropy, in nats: two scalars.

    `student` and `teacher` are (B, C) logits; `targets` (B,) class indices, read where
    `labelled` (B,) bool; `least` is the threshold. A mean over no items is 0.
    """
    confidence, label = at_least_float32(teacher.detach()).softmax(dim=1).max(dim=1)
    chosen = targets.where(labelled, label)
    each = F.cross_entropy(at_least_float32(student), chosen, reduction="none")
    confident = each * (confidence >= least)
    return masked_mean(each, labelled), masked_mean(confident, ~labelled)


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
        super().__post_init__()
        refuse_bad_shares(self, "label_fraction", "threshold", "ramp")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits = batch.student.logits, batch.teacher.logits
        told = batch.targets, batch.labelled
        labelled, unlabelled = confident_losses(*logits, *told, self.threshold)
        pseudo_weight = self.pseudo_weight * ramp_up(self.ramp, batch.progress)
        return {"ce": self.ce_weight * labelled, "pseudo": pseudo_weight * unlabelled}
