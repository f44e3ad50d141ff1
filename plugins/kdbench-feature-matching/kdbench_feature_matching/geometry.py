"""Tensor geometry that this family shares: unit vectors, map sizes, all pairs.

Maps are large, and a pass over one costs as much as a layer: what is done to them has
a gradient that reads and writes them as seldom as can be.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from kdbench import at_least_float32

SHORTEST = 1e-12
"""A vector shorter than this counts as zero: it has no direction to learn."""


class _Unit(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
        length = torch.where(length > SHORTEST, length, math.inf)
        ctx.dim = dim
        direction = x / length
        ctx.save_for_backward(direction, length)
        return direction

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """What is across x: along it, nothing changes its direction."""
        direction, length = ctx.saved_tensors
        (gradient,) = gradients
        along = (gradient * direction).sum(dim=ctx.dim, keepdim=True)
        return torch.addcmul(gradient, direction, along, value=-1).div_(length), None


class _Gram(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return rows @ rows.mT

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """One product: autograd does not know that both factors are the same."""
        (rows,) = ctx.saved_tensors
        (gradient,) = gradients
        return product_like(rows, gradient + gradient.mT, rows.mT)


def product_like(example: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The product left @ right.mT, in memory as `example` is.

    Another order would be slow to add to the gradients from elsewhere.
    """
    if example.is_contiguous():
        return left @ right.mT
    return (right @ left.mT).mT


def unit(x: Tensor, dim: int) -> Tensor:
    """`x` scaled to unit length along `dim`; zero vectors stay zero, gradient zero."""
    direction: Tensor = _Unit.apply(x, dim)  # type: ignore[no-untyped-call]
    return direction


def gram(rows: Tensor) -> Tensor:
    """Inner products (..., N, N) of the rows of (..., N, D)."""
    products: Tensor = _Gram.apply(rows)  # type: ignore[no-untyped-call]
    return products


def sum_of_squares(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """The squares of `x` summed over these axes, which stay with length 1."""
    half = (x * x.detach()).sum(dim, keepdim=True)  # the value, half the gradient
    return 2 * half - half.detach()


def as_rows(feature: Tensor) -> Tensor:
    """(B, ...) as (B, D) in float32 at least: a view, in the order of memory.

    For what does not depend on the order, as inner products do not.
    """
    wide = at_least_float32(feature)
    if wide.ndim == 4 and not wide.is_contiguous():
        wide = wide.movedim(1, -1)
    return wide.flatten(1)


def shrink(maps: Tensor, size: Sequence[int]) -> Tensor:
    """(..., H, W) maps pooled to the smaller of H and h, of W and w, by the mean.

    `size` ends in (h, w): the shape of the maps on the other side.
    """
    smaller = (min(maps.shape[-2], size[-2]), min(maps.shape[-1], size[-1]))
    if smaller == tuple(maps.shape[-2:]):
        return maps
    return F.adaptive_avg_pool2d(maps, smaller)


def alike(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides in float32 at least, maps at the smaller size; teacher detached.

    Features are (B, C, H, W), or (B, D) and left at their width.
    """
    student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
    if student.ndim < 4:
        return student, teacher
    return shrink(student, teacher.shape), shrink(teacher, student.shape)


def relations(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """How (B, D) vectors e lie to each other: their distances and angles.

    Distances (B, B) are over their mean. Angles (B, B, B) are the cosines of those at
    item j, [j, i, k], between e_i - e_j and e_k - e_j.
    """
    vectors = at_least_float32(vectors).flatten(1)
    difference = vectors - vectors[:, None]  # [i, j] is e_j - e_i
    squares = sum_of_squares(difference, dim=2).squeeze(2)
    apart = squares > SHORTEST**2
    distance = squares.where(apart, 1).sqrt().where(apart, 0)
    mean = distance.sum() / apart.sum().clamp(min=1)
    distance = distance / torch.where(mean > SHORTEST, mean, math.inf)
    return distance, gram(unit(difference, dim=2))
