"""Networks with int8 weights, quantised after training by torchao.

A weight w of an output channel becomes q = clamp(round(w / s), -128, 127), int8, with
one float32 scale s for the channel and no zero point: symmetric, as Krishnamoorthi
2018 (arXiv:1806.08342, section 3) advises for weights. Here s = max|w| / 127.5, and so
|w - s q| <= s / 2. All else stays float: biases, batch norm, embeddings, attention's
own projections, and layers of derived classes, whose arithmetic is unknown.

A state holds plain tensors: `weight` (int8), `weight_scale` (float32, one for each
channel), and the rest as it was. The scales are no parameters.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from importlib import metadata, util
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OLDEST = (0, 15)
"""Of torchao: the first with the tensors used here."""
CONVOLUTIONS: Mapping[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
}


def int8_dynamic(module: nn.Module) -> nn.Module:
    """A copy whose dense layers multiply in int8, in eval mode.

    Their inputs are quantised as they come, with one symmetric scale for each row (an
    item, or a token). Convolutions stay float. Raises ValueError for a network without
    plain dense layers, and where this cannot be done here.
    """
    _refuse(missing() or inexact() or nothing_dense(module))
    copy = deepcopy(module).eval()
    dense = [layer for layer in copy.modules() if _is_dense(layer)]
    return _replaced(copy, {layer: _int8_dense(layer, True) for layer in dense})


def int8_weights(module: nn.Module) -> nn.Module:
    """A copy whose dense layers and convolutions keep int8 weights, in eval mode.

    They are multiplied as floats, converted in each forward pass. torchao has no
    convolutions: here their weights are quantised by the same rule. Raises ValueError
    for a network without either, and where torchao is missing.
    """
    _refuse(missing() or nothing_with_weights(module))
    copy = deepcopy(module).eval()
    new: dict[nn.Module, nn.Module] = {}
    for layer in copy.modules():
        if _is_dense(layer):
            new[layer] = _int8_dense(layer, False)
        elif _is_convolution(layer):
            new[layer] = Int8Conv(layer)
    return _replaced(copy, new)


def nothing_dense(module: nn.Module) -> str | None:
    """Why `int8_dynamic` has nothing to do here, or None."""
    if any(map(_is_dense, module.modules())):
        return None
    return f"{type(module).__name__} has no plain dense layer (nn.Linear) to quantise"


def nothing_with_weights(module: nn.Module) -> str | None:
    """Why `int8_weights` has nothing to do here, or None."""
    if any(_is_dense(x) or _is_convolution(x) for x in module.modules()):
        return None
    return (
        f"{type(module).__name__} has no plain dense layer (nn.Linear) or convolution "
        "to quantise"
    )


@cache
def missing() -> str | None:
    """Why nothing can be quantised here, in a sentence, or None."""
    if util.find_spec("torchao") is None:
        return (
            "int8 needs torchao, which is not installed: pip install 'kdbench[quant]'"
        )
    found = _version()
    numbers = re.match(r"(\d+)\.(\d+)", found)
    if numbers and tuple(map(int, numbers.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return f"int8 needs torchao >= {oldest}, not {found}: pip install -U torchao"
    try:
        with _quiet():
            from torchao.quantization import Int8Tensor  # noqa: F401
    except (ImportError, AttributeError, RuntimeError) as error:
        return (
            f"int8: torchao {found} does not work with torch {torch.__version__} "
            f"({error}); install the one made for it"
        )
    return None


def _version() -> str:
    """torchao's, or that it has none: then importing it tells whether it fits."""
    try:
        return metadata.version("torchao")
    except metadata.PackageNotFoundError:  # such as a source tree on the path
        return "of unknown version"


def _refuse(why: str | None) -> None:
    if why:
        raise ValueError(why)


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is said of the kernels for other machines that torchao cannot load."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@cache
def inexact() -> str | None:
    """Why this machine's processor must not multiply in int8, or None.

    x86 without VNNI adds pairs of products in 16 bits, which large ones exceed, and
    says nothing.
    """
    with torch.device("cpu"), torch.no_grad():
        layer = nn.Linear(64, 2, bias=False)
        layer.weight.copy_(torch.tensor([[1.0], [-1.0]]).expand(2, 64))
        products = _int8_dense(layer, True)(torch.ones(8, 64))
        exact = torch.tensor([64.0, -64.0]).expand(8, 2)
    if torch.allclose(products, exact, rtol=0.02):  # (127 / 127.5) squared
        return None
    return (
        "this processor's int8 products overflow (x86 without VNNI); int8_weights "
        "multiplies in float"
    )


def _is_dense(layer: nn.Module) -> TypeGuard[nn.Linear]:
    return type(layer) is nn.Linear and _is_float(layer.weight)


def _is_convolution(layer: nn.Module) -> bool:
    plain = type(layer) in CONVOLUTIONS and _is_float(layer.weight)  # type: ignore[arg-type]
    return plain and layer.padding_mode == "zeros"


def _is_float(weight: Tensor) -> bool:
    """Whether it is a layer's own weight: not computed from others, not quantised."""
    return type(weight) is nn.Parameter and weight.is_floating_point()


def _replaced(network: nn.Module, new: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The network with these layers in place of those, in eval mode."""
    for parent in list(network.modules()):
        for name, part in parent._modules.items():
            if part is not None and part in new:
                parent._modules[name] = new[part]
    return new.get(network, network).eval()


def _int8_dense(layer: nn.Linear, dynamic: bool) -> Int8Linear:
    """The layer with int8 weights, its inputs quantised as they come or not at all."""
    with _quiet():
        from torchao.quantization import (
            Int8DynamicActivationInt8WeightConfig,
            Int8WeightOnlyConfig,
            quantize_,
        )
    kind = Int8DynamicActivationInt8WeightConfig if dynamic else Int8WeightOnlyConfig
    # inductor's settings are everybody's
    quantize_(layer, kind(version=2, set_inductor_config=False))
    return Int8Linear(layer)


class Int8Linear(nn.Linear):
    """A dense layer with torchao's int8 weights, kept as plain tensors."""

    def __init__(self, layer: nn.Linear):
        size = (layer.in_features, layer.out_features)
        super().__init__(*size, bias=layer.bias is not None, device="meta")
        self.weight = layer.weight
        self.bias = layer.bias

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        weight: Any = self.weight
        destination[f"{prefix}weight"] = weight.qdata
        destination[f"{prefix}weight_scale"] = weight.scale.flatten()

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any
    ) -> None:
        given = dict(state_dict)
        scale = given.pop(f"{prefix}weight_scale", None)
        numbers = given.pop(f"{prefix}weight", None)
        if scale is not None and numbers is not None:
            given[f"{prefix}weight"] = self._stored(numbers, scale)
        super()._load_from_state_dict(given, prefix, *args)

    def _stored(self, numbers: Tensor, scale: Tensor) -> Tensor:
        """The tensor that torchao multiplies with, of (O, I) int8 and (O,)."""
        weight: Any = self.weight
        names, rest = weight.__tensor_flatten__()
        parts = {name: getattr(weight, name) for name in names}
        own = {"qdata": numbers, "scale": scale.unsqueeze(1).to(weight.scale.dtype)}
        parts |= {name: part.to(weight.device) for name, part in own.items()}
        stored: Tensor = type(weight).__tensor_unflatten__(parts, rest, None, None)
        return stored


class Int8Conv(nn.Module):
    """A convolution with int8 weights, multiplied as floats."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        with _quiet():
            from torchao.quantization import Int8Tensor, PerRow
        old: nn.Conv2d = layer  # type: ignore[assignment]  # or of one or three axes
        rows = Int8Tensor.from_hp(old.weight.detach().flatten(1), PerRow())
        weight = torch.empty_like(old.weight, dtype=torch.int8, requires_grad=False)
        weight.copy_(rows.qdata.view(weight.shape))
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.weight_scale: Tensor
        self.register_buffer("weight_scale", rows.scale.flatten())
        self.bias = old.bias
        self._convolve = CONVOLUTIONS[type(layer)]
        self._geometry = (old.stride, old.padding, old.dilation, old.groups)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, ...) -> (B, O, ...), as the layer it was made from."""
        scale = self.weight_scale.view(-1, *[1] * (self.weight.ndim - 1))
        weight = (self.weight * scale).to(inputs.dtype)
        return self._convolve(inputs, weight, self.bias, *self._geometry)
