"""Built-in measures, and how a finished student is measured."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

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
    model = finished.model
    shown = (getattr(finished, one.name, None) for one in fields(Finished))
    plain = [x for x in shown if isinstance(x, Tensor)]
    plain += [*model.parameters(), *model.buffers()]
    tensors = [x for x in plain if type(x) in (Tensor, nn.Parameter)]  # not packed ones
    before = [(x, x._version, x.detach().clone()) for x in tensors]
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        changed = False
        for module, training in modes.items():
            changed |= module.training != training
            module.training = training
        with torch.no_grad():
            for tensor, version, value in before:
                if tensor._version != version:
                    changed = True
                    tensor.copy_(value)
    if changed:
        raise RuntimeError("it changed the student, or its answers")


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
