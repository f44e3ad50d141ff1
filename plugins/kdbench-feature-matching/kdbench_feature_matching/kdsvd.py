"""Distillation by singular value decomposition. Lee et al. 2018, arXiv:1807.06819.

v = right singular vectors (C,) of a stage as (H * W, C), for its k largest singular
values, times the teacher's values (k,) at unit length
R(i, j) = exp(-(v_i - w_j)^2 / 8), (C_l, C_l-1) of a stage's v and w of the one before
loss = ce_weight * CE + kdsvd_weight * sum_l mean_b sum_{i,j,k} (R_s - R_t)^2

For each vector of the teacher the student's is that of its k + 3 first with the largest
|cosine|, turned to make it positive (RepDistiller). Signs are arbitrary: here the
entries of each teacher's vector sum to >= 0. Where channels differ, a learned 1x1
convolution widens the student's stage first (RepDistiller needs equal channels;
mdistiller, whose weight of 1 this is, decomposes (C * H, W) instead). Squared singular
values closer than 1e-5 of the largest count as equal: no gradient passes between their
vectors (it has no bound), and those so close to 0 are never the nearest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from kdbench import (
    KINDS,
    Batch,
    Outputs,
    Strategy,
    Tapped,
    at_least_float32,
    label_loss,
)
from kdbench_feature_matching.geometry import gram, product_like, unit
from kdbench_feature_matching.matching import matched_stages, stage_shapes, why_no_maps

CLOSEST = 1e-5


def smaller_side(x: Tensor) -> Tensor:
    """(B, C, H * W), turned to (B, H * W, C) where there are more channels."""
    return x if x.shape[1] <= x.shape[2] else x.mT


def spectrum(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of the Gram matrices of the rows of (B, n, m), as constants.

    Eigenvalues (B, n) from the largest on, eigenvectors (B, n, n).
    """
    values, vectors = torch.linalg.eigh(gram(rows.detach()))
    return values.flip(-1).clamp(min=0), vectors.flip(-1)


class _GramTimes(Function):
    """rows @ rows.mT @ vectors, (B, n, k) of (B, n, m) and constants (B, n, k)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, vectors: Tensor) -> Tensor:
        weights = rows.mT @ vectors
        ctx.save_for_backward(rows, vectors, weights)
        return rows @ weights

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Both factors' parts of the gradient in one product."""
        rows, vectors, weights = ctx.saved_tensors
        (gradient,) = gradients
        left = torch.cat((gradient, vectors), dim=2)
        right = torch.cat((weights, rows.mT @ gradient), dim=2)
        return product_like(rows, left, right), None


def on_channels(x: Tensor, vectors: Tensor) -> Tensor:
    """Right singular vectors (B, C, k) from eigenvectors of the smaller side."""
    return vectors if x.shape[1] <= x.shape[2] else unit(x @ vectors, dim=1)


def nearest(x: Tensor, wanted: Tensor) -> Tensor:
    """Of (B, C, H * W) the singular vectors nearest to `wanted`, both (B, C, k)."""
    rows = smaller_side(x)
    values, basis = spectrum(rows)
    close = CLOSEST * values[:, :1, None]
    cosine = on_channels(x.detach(), basis[..., : wanted.shape[2] + 3]).mT @ wanted
    null = values[:, : cosine.shape[1], None] <= close
    best = cosine.abs().masked_fill(null, -1).argmax(dim=1, keepdim=True)  # (B, 1, k)
    chosen = basis.gather(2, best.expand(-1, basis.shape[1], -1))
    gaps = values.gather(1, best[:, 0])[:, None] - values[..., None]  # (B, n, k)
    gaps = gaps.masked_fill(gaps.abs() <= close, torch.inf)
    # How eigenvectors change, to first order: the value is 0, the gradient is not.
    turned: Tensor = _GramTimes.apply(rows, chosen)  # type: ignore[no-untyped-call]
    change = basis.mT @ (turned - turned.detach())
    sign = torch.where(cosine.gather(1, best) < 0, -1, 1)
    return on_channels(x, chosen + basis @ (change / gaps)) * sign


def relation(vectors: Tensor, before: Tensor) -> Tensor:
    """R (B, C, D, k) of the vectors (B, C, k) of a stage and (B, D, k) before it."""
    return (-(vectors[:, :, None] - before[:, None]).square() / 8).exp()


def principal(teacher: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The first singular vectors (B, C, k) of maps, and values (B, 1, k) as a unit."""
    x = at_least_float32(teacher).flatten(2)
    values, vectors = spectrum(smaller_side(x))
    wanted = on_channels(x, vectors[..., :k])
    wanted = wanted * torch.where(wanted.sum(dim=1, keepdim=True) < 0, -1, 1)
    return wanted, unit(values[:, None, :k].sqrt(), dim=2)


def teaching(
    teacher: Outputs, taps: Sequence[str], k: int
) -> tuple[tuple[tuple[Tensor, Tensor], ...], tuple[Tensor, ...]]:
    """What each tap's singular vectors and values are, and R of consecutive ones."""
    found = tuple(principal(teacher.features[tap], k) for tap in taps)
    scaled = [wanted * scale for wanted, scale in found]
    return found, tuple(relation(now, before) for before, now in pairwise(scaled))


def singular_loss(
    students: Sequence[Tensor], teacher: Outputs, taps: Sequence[str], k: int
) -> Tensor:
    """Squared difference of the relations of consecutive stages, summed: a scalar.

    The student's maps are (B, C, H, W), with as many channels as the teacher's at
    `taps`.
    """
    found, relations = teacher.once(teaching, tuple(taps), k)
    sides = [
        nearest(at_least_float32(student).flatten(2), wanted) * scale
        for student, (wanted, scale) in zip(students, found, strict=True)
    ]
    terms = [
        (relation(now, before) - of_teacher).square().sum() / len(now)
        for (before, now), of_teacher in zip(pairwise(sides), relations, strict=True)
    ]
    return torch.stack(terms).sum()


@dataclass(frozen=True, kw_only=True)
class SingularVectors(Strategy):
    """Match how the main channel patterns of consecutive stages relate."""

    name = "kdsvd"
    family = "feature matching"
    paper = "Lee et al. 2018, arXiv:1807.06819"
    tasks = KINDS
    taps = ("stages",)

    k: int = 1  # singular vectors of each stage, >= 1; the field's setting
    ce_weight: float = 1.0  # >= 0; the field's CIFAR-100 setting
    kdsvd_weight: float = 1.0  # >= 0, on the sum over channels; the field's setting

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise ValueError(f"k must be >= 1, not {self.k}")

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        reason = why_no_maps(student, teacher)
        if reason or teacher is None:
            return reason
        shapes = stage_shapes(student, teacher)
        if len(shapes) < 2:
            return "kdsvd relates each stage to the one before, and there is only one"
        few = min(min(t[0], s[1] * s[2], t[1] * t[2]) for s, t in shapes)
        if self.k > few:
            return f"a stage has only {few} singular vectors, and k is {self.k}"
        return None

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        return nn.ModuleList(
            nn.Identity() if s[0] == t[0] else nn.Conv2d(s[0], t[0], 1, bias=False)
            for s, t in stage_shapes(student, teacher)
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(batch.adapters, nn.ModuleList)  # noqa: S101 (see above)
        names = matched_stages(batch.student, batch.teacher)
        widened = [
            widen(at_least_float32(batch.student.features[s]))
            for widen, (s, _) in zip(batch.adapters, names, strict=True)
        ]
        taps = [t for _, t in names]
        singular = singular_loss(widened, batch.teacher, taps, self.k)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "singular": self.kdsvd_weight * singular}
