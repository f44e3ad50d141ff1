"""Noisy student. Xie et al. 2020, arXiv:1911.04252, algorithm 1.

Each generation learns, noised, from the one before, which is not noised:
loss = ce_weight * mean_labelled CE(z_s, y) + pseudo_weight * mean_unlabelled CE(z_s, q)
z_s = W dropout(f_s(strong view)) + b, q = softmax(z_t(clean view)), CE to all of q

W, b are the student's own classifier, f_s its pooled feature. The noise is RandAugment
and dropout; stochastic depth is left out, as no standard model has it. The paper starts
from a teacher of the labelled items and lets students grow; here the pair's, which knew
all labels, teaches the first of equal students. The authors' code weighs the unlabelled
mean by its share of the batch (1 to 3), filters, balances and smooths: not here.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Batch, Phase, Strategy, Tapped, at_least_float32
from kdbench_pseudo_label.semi_supervised import masked_mean, refuse_bad_shares


def dropped(feature: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """(B, D) in float32 at least, `share` of it 0 and the rest scaled up to its sum."""
    kept = torch.rand(feature.shape, generator=generator) >= share
    return at_least_float32(feature) * kept.to(feature.device) / (1 - share)


@dataclass(frozen=True, kw_only=True)
class NoisyStudent(Strategy):
    """Generations of noised students, each with the one before as its teacher."""

    name = "noisy_student"
    family = "pseudo-label"
    paper = "Xie et al. 2020, arXiv:1911.04252"
    taps = ("pooled",)
    views = ("strong",)
    student_views = ("strong",)
    teacher_views = ("",)

    students: int = 3  # generations, >= 1; paper
    label_fraction: float = 0.1  # share of the labels used, (0, 1]; our benchmark's
    dropout: float = 0.5  # share of the pooled feature, [0, 1); paper
    ce_weight: float = 1.0  # >= 0, on labelled items; paper
    pseudo_weight: float = 1.0  # >= 0, on unlabelled items; paper

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_bad_shares(self, "label_fraction")
        if self.students < 1:
            raise ValueError(f"students must be >= 1, not {self.students}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {self.dropout}")

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:  # noqa: ARG002
        if not isinstance(student.part("pooled"), nn.Linear):
            return f"{student.name} has no linear classifier to put dropout before"
        return None

    def phases(self) -> tuple[Phase, ...]:
        first = self.students - 1
        return tuple(
            Phase(
                name=f"generation {self.students - k}" if k else "",
                students=(k,),
                teachers=(0,) if k == first else (),
                peers=() if k == first else (k + 1,),
            )
            for k in range(first, -1, -1)
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        noised = batch.views["strong"].students[0]
        assert noised.classifier is not None  # noqa: S101 - see supports()
        feature = dropped(noised.features["pooled"], self.dropout, batch.generator)
        logits = noised.classifier(feature)
        q = at_least_float32(batch.teacher.logits.detach()).softmax(dim=1)
        ce = F.cross_entropy(logits, batch.targets, reduction="none")
        pseudo = F.cross_entropy(logits, q.to(logits.dtype), reduction="none")
        return {
            "ce": self.ce_weight * masked_mean(ce, batch.labelled),
            "pseudo": self.pseudo_weight * masked_mean(pseudo, ~batch.labelled),
        }
