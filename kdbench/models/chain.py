"""Networks that are a chain: dense layers, batch norm and activations in one row.

What several such networks compute can be computed as one. A chain is found by watching
a forward pass, so that it holds whatever class the network is of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.api import Dataset, Model, UserError

ACTIVATIONS = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Hardtanh,
    nn.Identity,
)
"""Layers that work on each number alone and draw nothing."""

KNOWN = (nn.Linear, nn.BatchNorm1d, nn.Flatten, *ACTIVATIONS)


class NoChainError(ValueError):
    """The network is no chain; says why."""


@dataclass(frozen=True)
class Chain:
    """The layers by module path, in turn, and where each module reads and writes.

    Place 0 is the flattened input (B, D), place i what the i-th layer gives. A module
    that is not in `reads` and `writes` takes or gives several things, or another one.
    """

    layers: tuple[str, ...]
    reads: Mapping[str, int]
    writes: Mapping[str, int]

    def place_of(self, tap: str) -> int | None:
        """Where the feature at a tap's path is found; None where it is not."""
        path = tap.removesuffix(":input")
        return (self.writes if path == tap else self.reads).get(path)


@dataclass
class _Call:
    """One call of a module."""

    path: str
    inputs: tuple[Any, ...]
    output: Any = None


def chain_of(module: nn.Module, inputs: Tensor) -> Chain:
    """The chain that answers to inputs (B, ...), B > 1; raises NoChainError.

    The module itself is not run, but a copy in train mode.
    """
    _refuse_unknown(module)
    copy = deepcopy(module).train()
    with _watched(copy) as calls, torch.no_grad(), torch.random.fork_rng(devices=[]):
        output = copy(inputs)
    leaves = {path for path, part in copy.named_modules() if _is_leaf(part)}
    places = [inputs.flatten(1)]
    layers = []
    for call in calls:  # in the order in which they began
        if call.path not in leaves:
            continue
        _refuse_apart(call, inputs, places)
        if not isinstance(copy.get_submodule(call.path), nn.Flatten):
            layers.append(call.path)
            places.append(call.output)
        else:
            places[-1] = call.output
    if not layers or output is not places[-1]:
        raise NoChainError("what it answers is not what its last layer gives")
    if len(set(layers)) < len(layers):
        raise NoChainError("it uses a layer twice")
    return Chain(
        layers=tuple(layers),
        reads=_found(
            {c.path: c.inputs[0] for c in calls if len(c.inputs) == 1}, places
        ),
        writes=_found({c.path: c.output for c in calls}, places),
    )


def _refuse_unknown(module: nn.Module) -> None:
    for path, part in module.named_modules():
        if not _is_leaf(part):
            continue
        kind = type(part).__name__
        if type(part) not in KNOWN:
            raise NoChainError(f"{path or 'it'} is a {kind}")
        if isinstance(part, nn.BatchNorm1d) and not (
            part.affine and part.track_running_stats and part.momentum is not None
        ):
            raise NoChainError(f"{path} is no ordinary {kind}")


def _refuse_apart(call: _Call, inputs: Tensor, places: list[Tensor]) -> None:
    """Raise unless the call takes up what the one before it gave."""
    [given] = call.inputs if len(call.inputs) == 1 else [None]
    starts = len(places) == 1 and any(_same(given, x) for x in (inputs, places[0]))
    if not starts and given is not places[-1]:
        raise NoChainError(f"{call.path} does not read what the layer before it gives")
    if call.output.dim() != 2:
        raise NoChainError(f"{call.path} gives no flat features")


def _same(given: Any, known: Tensor) -> bool:
    return isinstance(given, Tensor) and torch.equal(given, known)


def _found(tensors: Mapping[str, Any], places: list[Tensor]) -> dict[str, int]:
    """By module, the last place that holds its tensor: in-place layers share one."""
    at = {id(place): k for k, place in enumerate(places)}
    return {path: at[id(x)] for path, x in tensors.items() if id(x) in at}


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


@contextmanager
def _watched(module: nn.Module) -> Iterator[list[_Call]]:
    """Every call of the parts of a module, in the order in which they begin."""
    calls: list[_Call] = []
    paths = {part: path for path, part in module.named_modules()}

    def begin(part: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls.append(_Call(paths[part], inputs))

    def end(part: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        call = next(c for c in reversed(calls) if c.path == paths[part])
        call.output = output

    hooks = [part.register_forward_pre_hook(begin) for part in paths]
    hooks += [part.register_forward_hook(end) for part in paths]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def refuse_unstackable(students: Sequence[Model], dataset: Dataset, where: str) -> None:
    """Raise UserError where several of one of these students cannot be trained as one.

    `where` names what asks for it, such as a suite.
    """
    for spec in students:
        why = _why_not_stacked(spec, dataset)
        if why:
            raise UserError(
                f"stack = true in {where} trains multi-layer perceptrons as one, and "
                f"{spec.name} is none ({why}); leave it out"
            )


def _why_not_stacked(spec: Model, dataset: Dataset) -> str | None:
    if spec.learner == "fitted":
        return "it is fitted without gradients"
    if dataset.vocabulary:
        return "it reads tokens"
    size = math.prod(dataset.input_shape)
    inputs = torch.linspace(-1, 1, 2 * size).view(2, *dataset.input_shape)
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):  # costs nothing, however large it is
                _refuse_unknown(dataset.build(spec))
            chain_of(dataset.build(spec), inputs)
        except NoChainError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            return f"{type(error).__name__}: {error}"
    return None
