"""Tensor geometry that this family shares: unit vectors, map sizes, all pairs."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench import at_least_float32

SHORTEST = 1e-12
"""A vector shorter than this counts as zero: it has no direction to learn."""


def unit(x: Tensor, dim: int) -> Tensor:
    """`x` scaled to unit length along `dim`; zero vectors stay zero, gradient zero."""
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x / torch.where(length > SHORTEST, length, math.inf)


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


def differences(vectors: Tensor) -> Tensor:
    """All pairs' differences (B, B, D) of (B, D) vectors: [i, j] is e_j - e_i."""
    return vectors - vectors[:, None]


def distances(difference: Tensor) -> Tensor:
    """Distances (B, B) over their mean, from differences (B, B, D); dimensionless."""
    distance: Tensor = torch.linalg.vector_norm(difference, dim=2)
    pairs = (distance > SHORTEST).sum().clamp(min=1)
    mean = distance.sum() / pairs
    return distance / torch.where(mean > SHORTEST, mean, math.inf)


def angles(difference: Tensor) -> Tensor:
    """Cosines (B, B, B) of the angles at item j, [j, i, k], from differences."""
    direction = unit(difference, dim=2)
    return direction @ direction.transpose(1, 2)
