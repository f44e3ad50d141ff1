"""The student in training: its own network with fake quantisation put into it.

Weights of convolutions and dense layers are quantised in each forward pass, and so are
the inputs and what each unit of layer, batch norm and ReLU gives. Batch norm needs no
folding here: weights have one symmetric scale per output channel, and that commutes
with the factor which folding multiplies the channel by. Logits stay float.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import UserError
from kdbench_compression.ranges import MovingRange, fake_quantised_weight

INPUTS = "input_range"
OUTPUTS = "output_range"

KEEPS_VALUES = (
    nn.ReLU,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Flatten,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
)
"""Modules whose outputs, in eval mode, are among their inputs or zero."""


class FakeQuantConv2d(nn.Conv2d):
    """A convolution with int8 weights in its forward pass."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        weight = fake_quantised_weight(self.weight)
        maps: Tensor = self._conv_forward(input, weight, self.bias)
        return maps


class FakeQuantLinear(nn.Linear):
    """A dense layer with int8 weights in its forward pass."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return F.linear(input, fake_quantised_weight(self.weight), self.bias)


@dataclass(frozen=True, slots=True)
class Unit:
    """A convolution or dense layer and what folds into it. Fields are module paths."""

    layer: str
    norm: str | None
    relu: str | None

    @property
    def last(self) -> str:
        """Whose output is the unit's."""
        return self.relu or self.norm or self.layer

    @property
    def paths(self) -> set[str]:
        return {path for path in (self.layer, self.norm, self.relu) if path}


def units(network: nn.Module) -> list[Unit]:
    """Every convolution and dense layer, with batch norm and ReLU that come next.

    Next in an `nn.Sequential`: elsewhere the order of modules says nothing.
    """
    found = []
    for path, parent in network.named_modules():
        names = [f"{path}.{name}".lstrip(".") for name, _ in parent.named_children()]
        modules = list(parent.children())
        for k, module in enumerate(modules):
            if not isinstance(module, nn.Conv2d | nn.Linear):
                continue
            after = k + 1 if isinstance(parent, nn.Sequential) else len(modules)
            norm = relu = None
            if after < len(modules) and _normalises(modules[after], module):
                norm, after = names[after], after + 1
            if after < len(modules) and isinstance(modules[after], nn.ReLU):
                relu = names[after]
            found.append(Unit(names[k], norm, relu))
    return found


def _normalises(module: nn.Module, layer: nn.Module) -> bool:
    wanted = nn.BatchNorm2d if isinstance(layer, nn.Conv2d) else nn.BatchNorm1d
    return isinstance(module, wanted) and module.track_running_stats


def between(network: nn.Module) -> Iterator[str]:
    """Paths of the modules that compute in float between two units (such as means)."""
    folded = {path for unit in units(network) for path in unit.paths}
    for path, module in network.named_modules():
        parts = [p for p in module.children() if not isinstance(p, MovingRange)]
        skipped = isinstance(module, (MovingRange, *KEEPS_VALUES))
        if not parts and not skipped and path not in folded:
            yield path


def fake_quantised(network: nn.Module, classifier: str) -> nn.Module:
    """The network, trained from now on as int8 will compute it; changed in place.

    Module paths and the names of parameters stay. Raises UserError for a layer that has
    no int8 form.
    """
    _refuse_other_layers(network)
    add_ranges = [u.last for u in units(network) if u.layer != classifier]
    for path in [*add_ranges, *between(network)]:
        module = network.get_submodule(path)
        module.add_module(OUTPUTS, _beside(MovingRange(), network))
        module.register_forward_hook(_quantise_output)
    for unit in units(network):
        replace(network, unit.layer, _with_int8_weights(network, unit.layer))
    network.add_module(INPUTS, _beside(MovingRange(), network))
    network.register_forward_pre_hook(_quantise_input)
    return network


def _refuse_other_layers(network: nn.Module) -> None:
    for path, module in network.named_modules():
        plain = type(module) in (nn.Conv2d, nn.Linear)
        if isinstance(module, nn.Conv2d | nn.Linear):
            wrong = not plain or getattr(module, "padding_mode", "zeros") != "zeros"
            wrong = wrong or isinstance(getattr(module, "padding", 0), str)
        else:
            wrong = isinstance(module, nn.modules.conv._ConvNd | nn.RNNBase)
            wrong = wrong or isinstance(module, nn.MultiheadAttention)
        if wrong:
            raise UserError(
                f"int8: layer {path!r} ({module}) has no int8 form here; use Linear, "
                "or Conv2d with zero padding given in pixels"
            )


def _beside(module: MovingRange, network: nn.Module) -> MovingRange:
    return module.to(next(network.parameters()).device)


def _with_int8_weights(network: nn.Module, path: str) -> nn.Module:
    old = network.get_submodule(path)
    new: FakeQuantConv2d | FakeQuantLinear
    if isinstance(old, nn.Conv2d):
        new = FakeQuantConv2d(
            old.in_channels,
            old.out_channels,
            old.kernel_size,  # type: ignore[arg-type]  # torch's own value of it
            old.stride,  # type: ignore[arg-type]
            old.padding,  # type: ignore[arg-type]
            old.dilation,  # type: ignore[arg-type]
            old.groups,
            device="meta",
        )
    else:
        assert isinstance(old, nn.Linear)  # noqa: S101 - units are one or the other
        new = FakeQuantLinear(old.in_features, old.out_features, device="meta")
    new.weight = old.weight
    new.bias = old.bias
    for name, part in old.named_children():  # its range, where nothing follows it
        new.add_module(name, part)
        new.register_forward_hook(_quantise_output)
    return new


def replace(network: nn.Module, path: str, module: nn.Module) -> None:
    """Put the module where another one is."""
    parent, _, name = path.rpartition(".")
    network.get_submodule(parent).add_module(name, module)


def _quantise_output(module: nn.Module, _args: Any, output: Tensor) -> Tensor:
    rounded: Tensor = module.get_submodule(OUTPUTS)(output)
    return rounded


def _quantise_input(network: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (network.get_submodule(INPUTS)(args[0]), *args[1:])
