"""Knowledge review. Chen et al. 2021, arXiv:2104.09044, section 3.

Levels are the stages and, deepest, the pooled vector as a map of 1x1; the teacher's
stages t_l are taken before their last ReLU (preactK), the student's as they are. From
the deepest, with x_l the student's level l after a 1x1 convolution and batch norm:
    m_l = z_1 * x_l + z_2 * up(m_{l+1}), z = sigmoid(1x1 convolution of [x_l, up(..)])
    r_l = batch norm of the 3x3 convolution of m_l, both at the teacher's size
    HCL(r, t) = sum_k 2^-k mean [pool_k(r - t)]^2 / sum_k 2^-k
loss = ce_weight * CE + review_weight * warm_up * sum_l HCL(r_l, t_l)

The deepest m is its x. pool_0 is the identity, the next ones average to 4x4, 2x2 and
1x1 as far as these are smaller than the map. Sizes change by the nearest neighbour;
m has as many channels as the student's pooled vector, at most mid_channels. Stages are
matched by this family's rule; one that is a vector is a map of 1x1, too.

The paper's fusion, with what it leaves open by the authors' code, so too on which side
of the ReLU a stage is taken (for CIFAR). Their warm-up starts from 0, the field's from
1 / warmup_epochs, as here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import (
    KINDS,
    Batch,
    Outputs,
    Strategy,
    Tapped,
    at_least_float32,
    label_loss,
)
from kdbench_feature_matching.maps import Norm, as_map
from kdbench_feature_matching.matching import (
    stage_pairs,
    stage_shapes,
    why_no_like_stages,
)

AUTHORS = {
    "wrn_40_2-wrn_16_2": 5.0,
    "wrn_40_2-wrn_40_1": 5.0,
    "wrn_40_2-shufflenetv1": 5.0,
    "resnet32x4-resnet8x4": 5.0,
    "resnet32x4-shufflenetv1": 5.0,
    "resnet32x4-shufflenetv2": 8.0,
    "resnet56-resnet20": 0.6,
    "resnet110-resnet32": 1.0,
}
"""review_weight by pair, all that the authors' scripts for CIFAR-100 have."""
PRESETS = {"authors": {pair: {"review_weight": w} for pair, w in AUTHORS.items()}}


def context_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """HCL of two (B, C, H, W) of one shape: a scalar. The teacher is a constant."""
    difference = at_least_float32(student) - at_least_float32(teacher.detach())
    sizes = [size for size in (4, 2, 1) if size < min(difference.shape[-2:])]
    levels = [difference, *(F.adaptive_avg_pool2d(difference, k) for k in sizes)]
    weights = [0.5**k for k in range(len(levels))]
    terms = [w * x.square().mean() for w, x in zip(weights, levels, strict=True)]
    return torch.stack(terms).sum() / sum(weights)


def resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, H, W) at this height and width, by the nearest neighbour."""
    same = maps.shape[-2:] == tuple(size)
    return maps if same else F.interpolate(maps, list(size))


def before_relu(teacher: Outputs) -> Outputs:
    """The same, with each stageK as it is before its last ReLU: preactK."""
    seen = teacher.features
    features = {tap: seen[tap.replace("stage", "preact")] for tap in seen}
    return replace(teacher, features=features)


class Fusion(nn.Module):
    """A level (B, inputs, ., .) and m of the next deeper one -> r and its own m."""

    def __init__(self, inputs: int, middle: int, outputs: int, deepest: bool) -> None:
        super().__init__()
        inward = nn.Conv2d(inputs, middle, 1, bias=False)
        outward = nn.Conv2d(middle, outputs, 3, padding=1, bias=False)
        for layer in (inward, outward):
            nn.init.kaiming_uniform_(layer.weight, a=1)
        self.inward = nn.Sequential(inward, Norm(middle))
        self.outward = nn.Sequential(outward, Norm(outputs))
        self.gate = None if deepest else nn.Conv2d(2 * middle, 2, 1)

    def forward(
        self, level: Tensor, deeper: Tensor | None, size: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        mixed = self.inward(level)
        if self.gate is not None and deeper is not None:
            deeper = resized(deeper, mixed.shape[-2:])
            gates = torch.sigmoid(self.gate(torch.cat((mixed, deeper), dim=1)))
            mixed = gates[:, :1] * mixed + gates[:, 1:] * deeper
        mixed = resized(mixed, size)
        return self.outward(mixed), mixed


@dataclass(frozen=True, kw_only=True)
class KnowledgeReview(Strategy):
    """Match each teacher level with what the student knows there and deeper."""

    name = "reviewkd"
    family = "feature matching"
    paper = "Chen et al. 2021, arXiv:2104.09044"
    tasks = KINDS
    taps = ("stages", "preacts", "pooled")
    presets = PRESETS

    mid_channels: int = 512  # channels of the fusion at most, >= 1; authors' code
    ce_weight: float = 1.0  # >= 0; paper
    review_weight: float = 5.0  # >= 0, on the sum of HCL; authors' scripts, most pairs
    warmup_epochs: int = 20  # epochs, >= 0, 0 for none; authors' code, CIFAR-100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mid_channels < 1:
            raise ValueError(f"mid_channels must be >= 1, not {self.mid_channels}")

    def warm_up(self, epoch: float) -> float:
        """Factor on the review: (1, 2, ...) / warmup_epochs, at most 1."""
        return min(1.0, (math.floor(epoch) + 1) / max(self.warmup_epochs, 1))

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        reason = why_no_like_stages(student, teacher)
        if reason or teacher is None:
            return reason
        for stage, shape in teacher.stages.items():
            tap = stage.replace("stage", "preact")
            own = teacher.shapes.get(tap)
            if own != shape:
                return (
                    f"{tap} of {teacher.name} must have the shape of its {stage}: "
                    f"{own or 'none'} and {shape}"
                )
        return None

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        pooled = student.shapes["pooled"], teacher.shapes["pooled"]
        middle = min(self.mid_channels, pooled[0][0])
        stages = [
            Fusion(s[0], middle, t[0], False) for s, t in stage_shapes(student, teacher)
        ]
        return nn.ModuleList(
            [*stages, Fusion(pooled[0][0], middle, pooled[1][0], True)]
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(batch.adapters, nn.ModuleList)  # noqa: S101 (adapters() above)
        pooled = batch.student.features["pooled"], batch.teacher.features["pooled"]
        levels = [*stage_pairs(batch.student, before_relu(batch.teacher)), pooled]
        terms, mixed = [], None
        for fusion, (s, t) in zip(
            reversed(batch.adapters), reversed(levels), strict=True
        ):
            goal = as_map(t)
            guess, mixed = fusion(as_map(at_least_float32(s)), mixed, goal.shape[-2:])
            terms.append(context_loss(guess, goal))
        weight = self.review_weight * self.warm_up(batch.epoch)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {
            "ce": self.ce_weight * ce,
            "review": weight * torch.stack(terms).sum(),
        }
