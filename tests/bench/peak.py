"""The fastest convolution of this machine: what a training step is held against."""

from __future__ import annotations

from functools import cache
from time import perf_counter

import torch
import torch.nn.functional as F

SHAPES = ((64, 128, 32), (32, 256, 16), (32, 256, 32), (32, 512, 16), (64, 512, 8))
"""(batch, channels, height = width) of 3x3 convolutions with as many outputs."""
REPETITIONS = 3


def rate(shape: tuple[int, int, int], dtype: torch.dtype) -> float:
    """FLOP/s of forward and backward in channels_last: the best of a few."""
    batch, channels, size = shape
    layout = torch.channels_last
    stream = torch.Generator().manual_seed(0)

    def drawn(*sizes: int) -> torch.Tensor:
        values = torch.randn(*sizes, generator=stream).to(dtype)
        return values.contiguous(memory_format=layout).requires_grad_()

    images = drawn(batch, channels, size, size)
    weight = drawn(channels, channels, 3, 3)
    gradient = drawn(batch, channels, size, size).detach()
    times = []
    for _ in range(1 + REPETITIONS):  # the first one warms up
        started = perf_counter()
        F.conv2d(images, weight, padding=1).backward(gradient)
        times.append(perf_counter() - started)
        images.grad = weight.grad = None
    flops = 6 * 9 * batch * size**2 * channels**2
    return flops / min(times[1:])


@cache
def best_shape(precision: str) -> tuple[int, int, int]:
    return max(SHAPES, key=lambda shape: rate(shape, getattr(torch, precision)))


def convolution_rate(precision: str) -> float:
    """FLOP/s of the shape that is the fastest one here."""
    return rate(best_shape(precision), getattr(torch, precision))
