"""Pearson's correlation, safe where a vector is constant."""

import math

import torch
from torch import Tensor


def pearson(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """Correlations in [-1, 1] along `dim` of two arrays; 0 where one is constant."""
    return (_standardised(a, dim) * _standardised(b, dim)).sum(dim)


def _standardised(x: Tensor, dim: int) -> Tensor:
    """`x` centred and of unit length along `dim`; 0 where it is constant."""
    centred = x - x.mean(dim, keepdim=True)
    length = torch.linalg.vector_norm(centred, dim=dim, keepdim=True)
    # What rounding leaves of a constant vector is no direction.
    noise = torch.linalg.vector_norm(x.detach(), dim=dim, keepdim=True)
    noise = noise * (8 * torch.finfo(x.dtype).eps)
    return centred / torch.where(length > noise, length, math.inf)
