"""Built-in measures, and how a finished student is measured."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.api import Finished, Measure, Measured, hookimpl
from kdbench.engine.faults import raise_if_machine
from kdbench.measure.quality import QUALITY
from kdbench.measure.size import SIZE
from kdbench.measure.speed import SPEED
from kdbench.settings import kept


@hookimpl
def kdbench_measures() -> list[Measure]:
    return [*QUALITY, *SIZE, *SPEED]


@dataclass(frozen=True)
class Values:
    """What measures came to: numbers and lists of them by name, and what went wrong."""

    numbers: dict[str, float | None] = field(default_factory=dict)
    lists: dict[str, list[float | None]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def measure_all(
    measures: Iterable[Measure],
    scope: str,
    finished: Finished,
    asked: Collection[str] = (),
) -> Values:
    """Every measure of this scope, optional ones where they are `asked` for.

    A measure that raises or is not finite is None, so that none can cost a run, and so
    is one that changes the student or its answers, which are put back; faults of the
    machine are raised.
    """
    values = Values()
    for measure in due(measures, scope, finished.task.kind, asked):
        try:
            with kept(), untouched(finished):
                found = measure.compute(finished)
            _keep(measure.name, found, values)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is
            raise_if_machine(error, torch.device(finished.device), measure.name)
            values.numbers[measure.name] = None
            why = f"{type(error).__name__}: {error}"
            values.problems.append(f"measure {measure.name}: {why}")
    return values


@contextmanager
def untouched(finished: Finished) -> Iterator[None]:
    """Put back what a measure changes of the student or its answers, then raise."""
    shown = (getattr(finished, one.name, None) for one in fields(Finished))
    tensors = [x for x in shown if isinstance(x, Tensor)]
    model = finished.model
    tensors += [*model.parameters(), *model.buffers()]
    plain = [x for x in tensors if type(x) in (Tensor, nn.Parameter)]  # none packed
    values = [(x, x.detach().clone(), x.requires_grad) for x in plain]
    kept = [(x, x.training, _inside(x)) for x in model.modules()]
    try:
        yield
    finally:
        changed = False
        for module, training, inside in kept:
            other = _whose(_inside(module)) != _whose(inside)
            changed |= other or module.training != training
            module.training = training
            if other:
                _put_back(module, inside)
        with torch.inference_mode():
            for tensor, value, wants in values:
                if tensor.requires_grad != wants or not _equal(tensor, value):
                    changed = True
                    tensor.copy_(value)
                    tensor.requires_grad = wants
    if changed:
        raise RuntimeError("it changed the student, or its answers")


PLACES = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")


def _inside(module: nn.Module) -> list[dict[Any, Any]]:
    """What a module holds."""
    return [dict(getattr(module, place)) for place in PLACES]


def _whose(inside: list[dict[Any, Any]]) -> list[list[tuple[Any, int]]]:
    """The things themselves, not their values."""
    return [[(key, id(thing)) for key, thing in held.items()] for held in inside]


def _put_back(module: nn.Module, inside: list[dict[Any, Any]]) -> None:
    for place, things in zip(PLACES, inside, strict=True):
        held = getattr(module, place)
        held.clear()
        held.update(things)


def _equal(one: Tensor, other: Tensor) -> bool:
    if torch.equal(one, other):
        return True
    floating = one.is_floating_point() and one.shape == other.shape
    return floating and torch.equal(one.nan_to_num(), other.nan_to_num())


def due(
    measures: Iterable[Measure], scope: str, task: str, asked: Collection[str] = ()
) -> list[Measure]:
    """Those of this scope for this kind of task; optional ones where asked for."""
    return [
        measure
        for measure in measures
        if measure.scope == scope
        and task in measure.tasks
        and (not measure.optional or measure.name in asked)
    ]


def _keep(name: str, found: Measured, values: Values) -> None:
    several = found if isinstance(found, Mapping) else {"": found}
    for key, value in several.items():
        full = f"{name}_{key}" if key else name
        if isinstance(value, Sequence):
            values.lists[full] = [_finite(one) for one in value]
        else:
            values.numbers[full] = _finite(value)


def _finite(value: float | None) -> float | None:
    known = value is not None and math.isfinite(value)
    return float(value) if known else None  # type: ignore[arg-type]
