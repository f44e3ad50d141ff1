"""Neuron selectivity transfer. Huang & Wang 2017, arXiv:1707.01219.

x_c = one channel's map, flattened and scaled to unit length; k(x, y) = (x . y)^2
MMD^2 = mean_{cc'} k(s_c, s_c') - 2 mean_{cc'} k(s_c, t_c') + mean_{cc'} k(t_c, t_c')
loss = ce_weight * CE + nst_weight * sum_stages mean_b MMD^2

The kernel is the polynomial one with d = 2 and c = 0; the weight of 50 is the field's.
Where sizes differ, the larger map is average-pooled to the smaller one first.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdbench import KINDS, Batch, Strategy, Tapped, label_loss
from kdbench_feature_matching.geometry import alike, unit
from kdbench_feature_matching.matching import stage_pairs, why_no_maps


def selectivity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Batch mean of MMD^2 between the channels of two (B, C, H, W) maps: a scalar.

    Channels and sizes may differ. The teacher is a constant.
    """
    s, t = (unit(x.flatten(2), dim=2) for x in alike(student, teacher))  # (B, C, H W)
    own, others = s.shape[1], t.shape[1]
    if s.shape[2] * (own + others) <= own**2 + own * others + others**2:
        # sum k(x, y) = sum (X^T X) (Y^T Y): MMD^2 is the square of one difference.
        gap = s.mT @ s / own - t.mT @ t / others  # (B, H * W, H * W)
        return gap.square().sum(dim=(1, 2)).mean()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.mT).square().mean()

    return kernel(s, s) - 2 * kernel(s, t) + kernel(t, t)


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
        pairs = stage_pairs(batch.student, batch.teacher)
        mmd = torch.stack([selectivity_loss(s, t) for s, t in pairs]).sum()
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "selectivity": self.nst_weight * mmd}
