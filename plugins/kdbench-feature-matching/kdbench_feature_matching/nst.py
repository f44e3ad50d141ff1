"""Neuron selectivity transfer. Huang & Wang 2017, arXiv:1707.01219.

x_c = one channel's map, flattened and scaled to unit length; k(x, y) = (x . y)^2
MMD^2 = mean_{cc'} k(s_c, s_c') - 2 mean_{cc'} k(s_c, t_c') + mean_{cc'} k(t_c, t_c')
loss = ce_weight * CE + nst_weight * sum_stages mean_b MMD^2

The kernel is the polynomial one with d = 2 and c = 0; the weight of 50 is the field's.
Where sizes differ, the larger map is average-pooled to the smaller one first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench import KINDS, Batch, Strategy, Tapped, at_least_float32, label_loss
from kdbench_feature_matching.geometry import SHORTEST, gram, shrink, unit
from kdbench_feature_matching.goals import Goal, stage_goals
from kdbench_feature_matching.matching import why_no_maps


def patterns(maps: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, H * W) of maps, pooled where size (h, w) is smaller."""
    return shrink(at_least_float32(maps), size).flatten(2)


def positions(maps: Tensor, size: Sequence[int]) -> Tensor:
    """mean_c x_c x_c^T, (B, H * W, H * W) of all channels' unit patterns x."""
    return gram(unit(patterns(maps, size), dim=2).mT) / maps.shape[1]


def units(maps: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """All channels' unit patterns (B, C, H * W), and their mean kernel: a scalar."""
    x = unit(patterns(maps, size), dim=2)
    return x, gram(x).square().mean()


def selectivity_loss(student: Tensor, teacher: Goal) -> Tensor:
    """Batch mean of MMD^2 between the channels of two (B, C, H, W) maps: a scalar.

    Channels and sizes may differ.
    """
    size, own, others = tuple(student.shape[2:]), student.shape[1], teacher.shape[1]
    s = patterns(student, teacher.shape)
    if s.shape[2] * (own + others) <= own**2 + own * others + others**2:
        # sum k(x, y) = sum (X^T X) (Y^T Y): MMD^2 is the square of one difference.
        gap = positions(student, teacher.shape) - teacher.once(positions, size)
        return gap.square().sum(dim=(1, 2)).mean()
    t, of_teacher = teacher.once(units, size)
    products = gram(s)  # lengths are in it: s itself need not be scaled to unit ones
    squares = products.diagonal(dim1=1, dim2=2)
    per_length = squares.where(squares > SHORTEST**2, math.inf).rsqrt()[:, :, None]
    of_student = (products * per_length * per_length.mT).square().mean()
    crossed = t @ s.mT * per_length.mT  # (B, C', C): s last, for its gradient's order
    return of_student - 2 * crossed.square().mean() + of_teacher


@dataclass(frozen=True, kw_only=True)
class NeuronSelectivity(Strategy):
    """Match how the channels of each stage spread over the positions."""

    name = "nst"
    family = "feature matching"
    paper = "Huang & Wang 2017, arXiv:1707.01219"
    tasks = KINDS
    taps = ("stages",)

    ce_weight: float = 1.0  # >= 0; the field's CIFAR-100 setting
    nst_weight: float = 50.0  # >= 0, on each stage's MMD^2; the field's setting

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        return why_no_maps(student, teacher)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        mmd = torch.stack([selectivity_loss(s, t) for s, t in stage_goals(batch)]).sum()
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "selectivity": self.nst_weight * mmd}
