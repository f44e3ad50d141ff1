"""Patient knowledge distillation. Sun et al. 2019, arXiv:1908.09355, section 3.

h = the text's state in one layer (the mean over its tokens, as our models pool; BERT's
is that of [CLS]), u(h) = h / ||h||, r a learned map to the teacher's width
loss = ce_weight * CE + kd_weight * T^2 KL
     + hidden_weight * mean_{layers, b, d} (u(r(h_s)) - u(h_t))^2

The student's layers below its last learn, as the last one is taught by the logits; a
student of one layer learns in that one. "skip" takes the teacher's layers at the same
depth, "last" those next below its top. The mean over d is that of the authors' code, to
which the weight belongs. Where the widths agree r is left out, as in the paper.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from kdbench import Batch, Strategy, Tapped, at_least_float32, label_loss, soft_kl
from kdbench_text.distances import direction_mse
from kdbench_text.layers import (
    at_same_depth,
    last_ones,
    layer_states,
    layer_widths,
    text_positions,
    why_not_layered,
)
from kdbench_text.reading import mean_over_text


def patient_pairs(
    student: int, teacher: int, layers: Literal["skip", "last"]
) -> list[tuple[int, int]]:
    """(student layer, teacher layer) for these numbers of layers, counted from 1."""
    choose = at_same_depth if layers == "skip" else last_ones
    pairs = list(enumerate(choose(student, teacher), start=1))
    return pairs[:-1] or pairs


@dataclass(frozen=True, kw_only=True)
class PatientKD(Strategy):
    """Soft targets, and the direction of the text's state in the layers below."""

    name = "patient_kd"
    family = "BERT distillation"
    paper = "Sun et al. 2019, arXiv:1908.09355"
    taps = ("stages",)

    layers: Literal["skip", "last"] = "skip"  # skip or last; skip, the paper's better
    temperature: float = 10.0  # dimensionless, > 0; authors' runs, SST-2, 6 layers
    ce_weight: float = 0.5  # >= 0, the paper's 1 - alpha; authors' runs, SST-2
    kd_weight: float = 0.5  # >= 0, the paper's alpha; authors' runs, SST-2
    hidden_weight: float = 100.0  # >= 0, the paper's beta; authors' runs, SST-2

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        return why_not_layered(student, teacher)

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        own, wanted = layer_widths(student), layer_widths(teacher)
        return nn.ModuleList(
            nn.Identity()
            if own[s - 1] == wanted[t - 1]
            # Without a bias, which a direction does not have.
            else nn.Linear(own[s - 1], wanted[t - 1], bias=False)
            for s, t in patient_pairs(len(own), len(wanted), self.layers)
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(batch.adapters, nn.ModuleList)  # noqa: S101 (adapters above)
        own = [_of_text(x, batch) for x in layer_states(batch.student.features)]
        wanted = [_of_text(x, batch) for x in layer_states(batch.teacher.features)]
        pairs = patient_pairs(len(own), len(wanted), self.layers)
        hidden = [
            direction_mse(project(own[s - 1]), wanted[t - 1])
            for project, (s, t) in zip(batch.adapters, pairs, strict=True)
        ]
        logits = batch.student.logits
        kd = soft_kl(logits, batch.teacher.logits, self.temperature)
        ce = label_loss(batch.task, logits, batch.targets)
        return {
            "ce": self.ce_weight * ce,
            "kd": self.kd_weight * kd,
            "hidden": self.hidden_weight * torch.stack(hidden).mean(),
        }


def _of_text(states: Tensor, batch: Batch) -> Tensor:
    """(B, L, D) -> (B, D)."""
    present = text_positions(batch, states.shape[1])
    return mean_over_text(at_least_float32(states), present)
