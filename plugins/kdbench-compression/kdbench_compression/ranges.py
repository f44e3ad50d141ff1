"""Affine quantisation and the ranges that it needs.

q = clamp(round(x / scale) + zero_point, low, high); x is taken as
(q - zero_point) * scale. Jacob et al. 2018, arXiv:1712.05877, equation 1. Gradients
pass straight through the rounding, and not where x was clamped (Bengio et al. 2013,
arXiv:1308.3432).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 255
"""Steps of an unsigned byte: activations are 0..255."""
WEIGHT_LEVELS = 127
"""Weights are -127..127: symmetric, so that a change of sign loses nothing."""
MOMENTUM = 0.01
"""Weight of the newest batch in a moving range; torch's default for such observers."""
SMALLEST = torch.finfo(torch.float32).eps
"""Of scales: a range of nothing but zeros has none."""


def weight_scale(weight: Tensor) -> Tensor:
    """One scale for each output channel (first axis), (C,)."""
    largest = weight.detach().abs().flatten(1).amax(1)
    return (largest / WEIGHT_LEVELS).clamp(min=SMALLEST)


def fake_quantised_weight(weight: Tensor) -> Tensor:
    """The weights as int8 holds them, symmetric for each output channel."""
    if weight.is_meta:
        return weight
    scale = weight_scale(weight)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(
        weight, scale, zero, 0, -WEIGHT_LEVELS, WEIGHT_LEVELS
    )


class MovingRange(nn.Module):
    """Fake quantisation to uint8 with one moving range; frozen in eval mode.

    The range is a moving average of each batch's smallest and largest value, and always
    holds zero, which is then met exactly. Its three numbers are buffers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.low: Tensor
        self.high: Tensor
        self.batches: Tensor
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.ones(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if x.is_meta:
            return x  # only shapes are asked for
        if self.training:
            self._follow(x.detach())
        scale, zero_point = self.affine()
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, LEVELS)

    def _follow(self, x: Tensor) -> None:
        low, high = torch.aminmax(x.float())
        # the first batch sets the range
        share = torch.where(self.batches == 0, 1.0, MOMENTUM)
        self.low.lerp_(low.clamp(max=0), share)
        self.high.lerp_(high.clamp(min=0), share)
        self.batches += 1

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale (float32) and zero point (int32, 0..255), both of no dimension."""
        scale = ((self.high - self.low) / LEVELS).clamp(min=SMALLEST)
        zero_point = (-self.low / scale).round().clamp(0, LEVELS)
        return scale, zero_point.to(torch.int32)
