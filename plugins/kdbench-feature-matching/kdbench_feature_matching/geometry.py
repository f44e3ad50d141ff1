"""Tensor geometry that this family shares: precision, unit vectors, map sizes."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SHORTEST = 1e-12
"""A vector shorter than this counts as zero: it has no direction to learn."""


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision widened to float32; float32 and float64 as they are."""
    return x if x.dtype == torch.float64 else x.float()


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
