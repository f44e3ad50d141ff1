"""Sharpened soft pseudo-labels. Berthelot et al. 2019 (MixMatch), arXiv:1905.02249,
equations 3-5 and 7.

q = p_t^(1/T) / sum_c p_t^(1/T), with p_t = softmax(z_t), which is softmax(z_t / T)
loss = ce_weight * mean_labelled CE(z_s, y)
     + pseudo_weight * ramp_up * mean_unlabelled 1/C sum_c (softmax(z_s) - q)^2

Of MixMatch these are the guessed labels and the loss on them (Brier score over C): a
trained teacher that knew all labels guesses from one view, where the paper's network
averages its answers to 2 augmentations, and nothing is mixed up (MixUp, section 3.3).
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench import Batch, Strategy, at_least_float32
from kdbench_pseudo_label.semi_supervised import masked_mean, ramp_up, refuse_bad_shares


def brier_scores(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over classes of the squared error to the sharpened teacher: (B,).

    `student` and `teacher` are (B, C) logits. The teacher is a constant.
    """
    sharpened = (at_least_float32(teacher.detach()) / temperature).softmax(dim=1)
    return (at_least_float32(student).softmax(dim=1) - sharpened).square().mean(dim=1)


@dataclass(frozen=True, kw_only=True)
class SharpenedPseudoLabel(Strategy):
    """Few labels, plus the teacher's sharpened probabilities for the other items."""

    name = "sharpened_pseudo_label"
    family = "pseudo-label"
    paper = "Berthelot et al. 2019, arXiv:1905.02249"

    label_fraction: float = 0.1  # share of the labels used, (0, 1]; our benchmark's
    sharpen_temperature: float = 0.5  # dimensionless, > 0; paper, T
    ce_weight: float = 1.0  # >= 0, on labelled items; paper
    pseudo_weight: float = 75.0  # >= 0, on unlabelled items; paper, CIFAR-10 (lambda_U)
    ramp: float = 0.016  # share of training, [0, 1]; authors' code (1 of 64)

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_bad_shares(self, "label_fraction", "ramp")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student, labelled = at_least_float32(batch.student.logits), batch.labelled
        ce = F.cross_entropy(student, batch.targets, reduction="none")
        brier = brier_scores(student, batch.teacher.logits, self.sharpen_temperature)
        pseudo_weight = self.pseudo_weight * ramp_up(self.ramp, batch.progress)
        return {
            "ce": self.ce_weight * masked_mean(ce, labelled),
            "pseudo": pseudo_weight * masked_mean(brier, ~labelled),
        }
