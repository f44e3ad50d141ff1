"""A frozen teacher made ready: what never changes is computed once, not in every batch.

Batch norms in eval mode are folded into the convolutions and dense layers before them,
and the weights that bfloat16 would round in every forward pass are rounded once. What
is done depends on the model and its weights alone, never on who taps it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from kdbench.api import Model
from kdbench.engine.faults import raise_if_machine

NORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
    nn.Linear: nn.BatchNorm1d,
}
"""Layer -> what can be folded into it. Subclasses may compute something else."""

ITEMS = 2
"""A teacher is compared with its folded copy on this many."""

TOLERANCE = 1e-6
"""Of the largest value: far above float64's rounding, far below a false folding."""

Pair = tuple[str, str]
"""Module paths of a layer and of the batch norm that reads its output."""


@dataclass(frozen=True)
class Folded:
    """A teacher's private copy with Identity for every folded batch norm.

    `hidden` are the module paths, or "PATH:input", where it has other values than the
    original: in front of a folded batch norm.
    """

    module: nn.Module
    pairs: tuple[Pair, ...] = ()
    hidden: frozenset[str] = frozenset()


def folded(spec: Model, module: nn.Module, inputs: Tensor) -> Folded:
    """Fold all batch norms that can be; the module itself stays as it is.

    `inputs` (B, ...) are some of the dataset's; numbers are drawn anew. In float64 the
    copy gives the same logits and values at all of the model's taps, or it is not used:
    a model that does not compute in float64 is returned as it is.
    """
    if not any(type(part) in NORMS.values() for part in module.modules()):
        return Folded(module)
    try:
        exact = deepcopy(module).cpu().double().eval()
        with torch.no_grad():
            pairs, hidden = _choose(spec, exact, _drawn(inputs))
    except Exception as error:  # noqa: BLE001 - anyone's model; unfolded it is right
        raise_if_machine(error, inputs.device, f"folding {spec.name}")
        return Folded(module)
    if not pairs:
        return Folded(module)
    copy = deepcopy(module).eval()
    _fold(copy, pairs)
    return Folded(copy, tuple(pairs), frozenset(hidden))


def _drawn(inputs: Tensor) -> Tensor:
    """Standard normal numbers in place of normalised inputs; tokens as they are."""
    if not inputs.is_floating_point():
        return inputs.cpu()
    stream = torch.Generator().manual_seed(0)
    return torch.randn(inputs.shape, generator=stream, dtype=torch.float64)


def _choose(
    spec: Model, module: nn.Module, inputs: Tensor
) -> tuple[list[Pair], set[str]]:
    """The pairs that fold without changing an answer, and what they hide.

    A layer whose own output is one of the model's taps is left alone.
    """
    declared = set(spec.taps.values())
    expected, found = _traced(module, inputs)
    pairs = [
        (layer, norm)
        for layer, norm in found
        if not declared & {layer, f"{norm}:input"}
    ]

    def changed(some: Sequence[Pair]) -> set[str]:
        if not some:
            return set()
        copy = deepcopy(module)
        _fold(copy, some)
        return _differing(expected, _traced(copy, inputs)[0])

    visible = {"", *declared}
    hidden = changed(pairs)
    if hidden & visible:
        # one is read by others, too: by a shortcut around the batch norm, say
        pairs = [pair for pair in pairs if not changed([pair]) & visible]
        hidden = changed(pairs)
    return ([], set()) if hidden & visible else (pairs, hidden)


def _traced(module: nn.Module, inputs: Tensor) -> tuple[dict[str, Tensor], list[Pair]]:
    """One pass: every module's tensors by path, and which batch norm reads which layer.

    The logits stand under "", inputs under "PATH:input"; of several calls the last
    counts, as it does for taps.
    """
    values: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()
    made: dict[int, tuple[str, Tensor]] = {}  # holds the tensor: ids are reused
    read: list[Pair] = []

    def after(path: str, part: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        calls[path] += 1
        if args and isinstance(args[0], Tensor):
            values[f"{path}:input"] = args[0]
            source, _ = made.get(id(args[0]), ("", None))
            if source and _fit(module.get_submodule(source), part, args[0]):
                read.append((source, path))
        if isinstance(output, Tensor):
            values[path] = output
            if type(part) in NORMS:
                made[id(output)] = (path, output)

    with _watched(module, after):
        module(inputs)
    readers = Counter(layer for layer, _ in read)
    pairs = [
        (layer, norm)
        for layer, norm in read
        if calls[layer] == calls[norm] == readers[layer] == 1
    ]
    return values, pairs


@contextmanager
def _watched(module: nn.Module, after: Any) -> Iterator[None]:
    """Call `after(path, part, args, output)` behind every part of the module."""
    hooks = [
        part.register_forward_hook(partial(after, path))
        for path, part in module.named_modules()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _fit(layer: nn.Module, norm: nn.Module, between: Tensor) -> bool:
    """Whether this norm scales and shifts the layer's own output channels."""
    if type(norm) is not NORMS[type(layer)] or norm.running_mean is None:
        return False
    return between.dim() == 2 if isinstance(layer, nn.Linear) else True


def _fold(module: nn.Module, pairs: Sequence[Pair]) -> None:
    """Give the layers the scale and shift of their norms; Identity for these."""
    for layer, norm in pairs:
        _absorb(module.get_submodule(layer), module.get_submodule(norm))
    norms = [module.get_submodule(norm) for _, norm in pairs]
    everywhere = list(module.named_modules(remove_duplicate=False))
    for path, part in everywhere:
        if any(part is norm for norm in norms):
            module.set_submodule(path, nn.Identity().eval())


def _absorb(layer: Any, norm: Any) -> None:
    """Fold in float64, and round once."""
    one, two = (deepcopy(part).cpu().double() for part in (layer, norm))
    weight, bias = fuse_conv_bn_weights(
        one.weight,
        one.bias,
        two.running_mean,
        two.running_var,
        two.eps,
        two.weight,
        two.bias,
    )
    known = layer.weight
    layer.weight = _frozen(torch.empty_like(known).copy_(weight))  # its layout, too
    layer.bias = _frozen(bias.to(known))


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach(), requires_grad=False)


def _differing(expected: dict[str, Tensor], found: dict[str, Tensor]) -> set[str]:
    """Where two passes differ by more than rounding, or where one has no value."""
    return {
        path
        for path in expected.keys() | found.keys()
        if path not in expected
        or path not in found
        or not _agree(expected[path], found[path])
    }


def _agree(one: Tensor, two: Tensor) -> bool:
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    if one.numel() == 0:
        return True
    largest = one.double().abs().max()
    error = (one.double() - two.double()).abs().max()
    return bool(error <= TOLERANCE * largest)


def rounded(module: nn.Module, inputs: Tensor) -> nn.Module:
    """A copy whose convolutions and dense layers hold their weights in bfloat16.

    Autocast rounds them in every forward pass, to the same bits. Where any part's
    answer to `inputs` (B, ...) has other bits, the module is returned as it is: it
    reads its weights in another way, too.
    """
    copy = deepcopy(module).eval()
    for part in copy.modules():
        if type(part) not in NORMS:
            continue
        for name in ("weight", "bias"):
            value = getattr(part, name)
            if isinstance(value, nn.Parameter) and value.dtype == torch.float32:
                setattr(part, name, _frozen(value.bfloat16()))
    device = inputs.device.type
    with torch.no_grad(), torch.autocast(device, torch.bfloat16):
        expected, _ = _traced(module, inputs)
        try:
            found, _ = _traced(copy, inputs)
        except Exception as error:  # noqa: BLE001 - anyone's model; unrounded it is right
            raise_if_machine(error, inputs.device, "rounding a teacher's weights")
            return module
    same = expected.keys() == found.keys() and all(
        value.dtype == found[path].dtype and torch.equal(value, found[path])
        for path, value in expected.items()
    )
    return copy if same else module
