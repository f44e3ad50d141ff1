"""torch's int8 kernels, and whether this machine's are exact.

They take torch's quantised tensors, which torch 2.13 calls deprecated without naming a
successor that takes convolutions; `exact_kernels` is False where they are gone.
torch.ao's converters of whole models are deprecated too, and torchao's take a model
apart into one flat graph, without the module paths that features are tapped by.
"""

from __future__ import annotations

import warnings
from functools import cache

import torch
from torch import Tensor

from kdbench_compression.ranges import LEVELS, WEIGHT_LEVELS


def per_channel(weight: Tensor, scale: Tensor) -> Tensor:
    """A quantised tensor of (C, ...) int8 numbers and (C,) scales."""
    zero = torch.zeros_like(scale, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"torch\.quantize_per_tensor, .* deprecated")
        return torch._make_per_channel_quantized_tensor(weight, scale, zero, 0)


@cache
def exact_kernels() -> bool:
    """Whether this machine's int8 kernels add up without overflow.

    x86 without VNNI adds pairs of products in 16 bits, which the largest ones exceed;
    some builds of torch have no such kernels at all.
    """
    with torch.device("cpu"), torch.no_grad():
        try:
            return _adds_up()
        except (AttributeError, RuntimeError):
            return False


def _adds_up() -> bool:
    """The largest inputs and weights through a dense layer and a convolution."""
    inputs, outputs = 64, 8
    weight = torch.full((outputs, inputs), WEIGHT_LEVELS, dtype=torch.int8)
    weight[::2] *= -1
    exact = LEVELS * inputs * weight[:, 0].double()
    step, middle = float(exact.abs().max()) / 127, 128
    stored = per_channel(weight, torch.ones(outputs, dtype=torch.float64))
    largest = torch.full((1, inputs), float(LEVELS))
    x = torch.quantize_per_tensor(largest, 1.0, 0, torch.quint8)
    ops = torch.ops.quantized
    dense = ops.linear(x, ops.linear_prepack(stored, None), step, middle)
    filters = stored.reshape(outputs, inputs, 1, 1)
    packed = ops.conv2d_prepack(filters, None, [1, 1], [0, 0], [1, 1], 1)
    maps = ops.conv2d(x.reshape(1, inputs, 1, 1), packed, step, middle)
    answers = torch.stack([y.dequantize().flatten().double() for y in (dense, maps)])
    return bool(((answers - exact).abs() < step).all())
