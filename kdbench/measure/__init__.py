"""Built-in measures, and how a finished student is measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch

from kdbench.api import Finished, Measure, hookimpl
from kdbench.engine.faults import raise_if_machine
from kdbench.measure.quality import QUALITY
from kdbench.measure.size import SIZE
from kdbench.measure.speed import SPEED


@hookimpl
def kdbench_measures() -> list[Measure]:
    return [*QUALITY, *SIZE, *SPEED]


def measure_all(
    measures: Iterable[Measure], scope: str, finished: Finished
) -> tuple[dict[str, float | None], list[str]]:
    """Every measure of this scope by name, and what went wrong with which.

    A measure that raises or is not finite is None, so that none can cost a run; faults
    of the machine are raised.
    """
    values: dict[str, float | None] = {}
    problems = []
    for measure in measures:
        if measure.scope != scope or finished.task.kind not in measure.tasks:
            continue
        try:
            found = measure.compute(finished)
            several = found if isinstance(found, Mapping) else {"": found}
            for key, value in several.items():
                name = f"{measure.name}_{key}" if key else measure.name
                known = value is not None and math.isfinite(value)
                values[name] = float(value) if known else None  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            raise_if_machine(error, torch.device(finished.device), measure.name)
            values[measure.name] = None
            problems.append(f"measure {measure.name}: {type(error).__name__}: {error}")
    return values, problems
