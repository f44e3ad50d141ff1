"""Distances of two models' answers on the same texts; padding never counts."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench import at_least_float32

SHORTEST = 1e-12
"""A vector shorter than this counts as zero: it has no direction to learn."""


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """-sum_c p_t(c) log p_s(c) of softened (B, C) logits, in nats: the batch's mean.

    p = softmax(z / temperature). The teacher is a constant.
    """
    wanted = F.softmax(at_least_float32(teacher.detach()) / temperature, dim=1)
    return F.cross_entropy(at_least_float32(student) / temperature, wanted)


def direction_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean square difference of (B, D) vectors scaled to unit length: a scalar.

    A zero vector stays zero and has no gradient. The teacher is a constant.
    """
    return F.mse_loss(_unit(student), _unit(teacher.detach()))


def _unit(x: Tensor) -> Tensor:
    x = at_least_float32(x)
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / torch.where(length > SHORTEST, length, math.inf)


def state_mse(student: Tensor, teacher: Tensor, present: Tensor) -> Tensor:
    """Mean square difference of (B, L, D) states over the texts' own positions.

    `present` (B, L) is true where a text is. The teacher is a constant.
    """
    own = present.unsqueeze(2)
    return _mean_square(student, teacher, own, present.sum() * student.shape[2])


def score_mse(student: Tensor, teacher: Tensor, present: Tensor) -> Tensor:
    """Mean square difference of (B, H, L, L) attention scores within the texts.

    Only scores between two of a text's own positions count. Where the numbers of heads
    differ, the means over the heads are compared. The teacher is a constant.
    """
    if student.shape[1] != teacher.shape[1]:
        student, teacher = (
            at_least_float32(x).mean(dim=1, keepdim=True) for x in (student, teacher)
        )
    own = present[:, None, :, None] & present[:, None, None, :]  # (B, 1, L, L)
    return _mean_square(student, teacher, own, own.sum() * student.shape[1])


def _mean_square(
    student: Tensor, teacher: Tensor, own: Tensor, count: Tensor
) -> Tensor:
    difference = at_least_float32(student) - at_least_float32(teacher.detach())
    # Filled, not multiplied: what stands at padding may be anything.
    return difference.masked_fill(~own, 0).square().sum() / count
