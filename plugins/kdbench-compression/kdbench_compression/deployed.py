"""The deployed student: int8 weights as stored tensors, computed with int8 kernels.

Where there are none (another device than the CPU, or see `exact_kernels`), the same
numbers are computed in float: slower, and equal up to float32 rounding.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench_compression.kernels import exact_kernels, per_channel
from kdbench_compression.ranges import LEVELS, MovingRange, weight_scale


class Affine(nn.Module):
    """A frozen scale and zero point."""

    def __init__(self, moving: MovingRange):
        super().__init__()
        scale, zero_point = moving.affine()
        self.scale: Tensor
        self.zero_point: Tensor
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("zero_point", zero_point.detach().clone())

    def quantise(self, x: Tensor) -> Tensor:
        """As a quantised tensor of uint8."""
        return torch.quantize_per_tensor(x, self.scale, self.zero_point, torch.quint8)

    def fake(self, x: Tensor) -> Tensor:
        """As floats of the same values."""
        return torch.fake_quantize_per_tensor_affine(
            x, self.scale, self.zero_point, 0, LEVELS
        )


class Int8Layer(nn.Module):
    """A layer with int8 weights, folded batch norm and ReLU.

    From a quantised tensor to one, or to floats where `output` is None (logits); from
    floats to floats of the same values. `weight` is int8, `weight_scale` (C,) and
    `bias` (C,) are float32.
    """

    def __init__(
        self,
        layer: nn.Conv2d | nn.Linear,
        norm: nn.BatchNorm1d | nn.BatchNorm2d | None,
        relu: bool,
        moving: MovingRange | None,
    ):
        super().__init__()
        scale = weight_scale(layer.weight)
        broad = (-1, *[1] * (layer.weight.ndim - 1))  # (C, 1, ...)
        weight = (layer.weight.detach() / scale.view(broad)).round().to(torch.int8)
        bias = torch.zeros_like(scale) if layer.bias is None else layer.bias.detach()
        if norm is not None:
            factor, shift = _folded(norm)
            weight = weight * factor.sign().to(torch.int8).view(broad)
            scale, bias = scale * factor.abs(), bias * factor + shift
        self.weight: Tensor
        self.weight_scale: Tensor
        self.bias: Tensor
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("weight_scale", scale.clone())
        self.register_buffer("bias", bias.clone())
        self.output = None if moving is None else Affine(moving)
        self.relu = relu
        self.mac_count = math.nan
        self._packed: tuple[Any, float, int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if x.is_quantized and self.output is not None:
            y = self._in_int8(x)
        else:
            broad = (-1, *[1] * (self.weight.ndim - 1))
            weight = self.weight * self.weight_scale.view(broad)
            y = self._in_float(x.dequantize() if x.is_quantized else x, weight)
            y = F.relu(y) if self.relu else y
            y = y if self.output is None else self.output.fake(y)
        positions = y.numel() // (len(y) * len(self.weight))
        self.mac_count = float(self.weight.numel() * positions)
        return y

    def _in_int8(self, x: Tensor) -> Tensor:
        if self._packed is None:
            assert self.output is not None  # noqa: S101 - the caller has looked
            scale, zero_point = self.output.scale, self.output.zero_point
            weight = per_channel(self.weight.cpu(), self.weight_scale.double().cpu())
            packed = self._pack(weight, self.bias.cpu())
            self._packed = (packed, float(scale.item()), int(zero_point.item()))
        y: Tensor = self._kernel()(x, *self._packed)
        return y

    @abstractmethod
    def _in_float(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer's product with these weights, and the bias."""

    @abstractmethod
    def _pack(self, weight: Tensor, bias: Tensor) -> Any:
        """What the kernel takes."""

    @abstractmethod
    def _kernel(self) -> Any:
        """The int8 kernel with or without ReLU."""

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._packed = None  # it holds the weights from before

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}


class Int8Conv2d(Int8Layer):
    """A convolution."""

    def __init__(self, layer: nn.Conv2d, *folded: Any):
        super().__init__(layer, *folded)
        self.geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)

    def _in_float(self, x: Tensor, weight: Tensor) -> Tensor:
        stride, padding, dilation, groups = self.geometry
        return F.conv2d(x, weight, self.bias, stride, padding, dilation, groups)

    def _pack(self, weight: Tensor, bias: Tensor) -> Any:
        stride, padding, dilation, groups = self.geometry
        ops = torch.ops.quantized
        return ops.conv2d_prepack(weight, bias, stride, padding, dilation, groups)

    def _kernel(self) -> Any:
        ops = torch.ops.quantized
        return ops.conv2d_relu if self.relu else ops.conv2d


class Int8Linear(Int8Layer):
    """A dense layer."""

    def _in_float(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight, self.bias)

    def _pack(self, weight: Tensor, bias: Tensor) -> Any:
        return torch.ops.quantized.linear_prepack(weight, bias)

    def _kernel(self) -> Any:
        ops = torch.ops.quantized
        return ops.linear_relu if self.relu else ops.linear


class ThroughFloat(nn.Module):
    """A module without an int8 form (a mean, a sigmoid): floats in, quantised out."""

    def __init__(self, inner: nn.Module, moving: MovingRange):
        super().__init__()
        self.inner = inner
        self.output = Affine(moving)

    def forward(self, x: Tensor) -> Tensor:
        if x.is_quantized:
            return self.output.quantise(self.inner(x.dequantize()))
        return self.output.fake(self.inner(x))


class Int8Network(nn.Module):
    """(B, ...) floats -> (B, C) float logits; between them int8 where it can be."""

    def __init__(self, network: nn.Module, moving: MovingRange):
        super().__init__()
        self.network = network
        self.input = Affine(moving)

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.device.type == "cpu" and exact_kernels():
            logits: Tensor = self.network(self.input.quantise(inputs))
        else:
            logits = self.network(self.input.fake(inputs))
        return logits.dequantize() if logits.is_quantized else logits

    @property
    def parameter_count(self) -> int:
        """Weights and biases; batch norm is folded into them."""
        layers = [m for m in self.modules() if isinstance(m, Int8Layer)]
        folded = sum(x.weight.numel() + x.bias.numel() for x in layers)
        return folded + sum(p.numel() for p in self.parameters())

    @property
    def mac_count(self) -> float:
        """Multiply-accumulates of one item in the last forward pass; NaN before one."""
        return sum(m.mac_count for m in self.modules() if isinstance(m, Int8Layer))


def _folded(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Factor and shift, (C,) each, that batch norm in eval mode comes to."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None  # noqa: S101, PT018 - a unit's are
    factor = (variance + norm.eps).rsqrt()
    if norm.weight is None:
        return factor, -mean * factor
    factor = factor * norm.weight.detach()
    return factor, norm.bias.detach() - mean * factor
