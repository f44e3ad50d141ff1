"""A committed record beside the new one: bit for bit, or within an interval."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from types import MappingProxyType
from typing import Literal

from kdbench.plan import measure_of
from kdbench.plugins import Host
from kdbench.records import Record
from kdbench.reproducing.anew import Again, changes
from kdbench.reproducing.cells import Cell
from kdbench.stats import Prediction, prediction

Verdict = Literal["identical", "within", "outside", "differs", "failed", "no interval"]

REPRODUCED: tuple[Verdict, ...] = ("identical", "within")

BITS = (
    *("machine", "cpu", "cpu_model", "device", "threads", "torch", "numpy"),
    *("gpu", "cuda", "cudnn"),
)
"""What of a record's environment may change a result's bits."""

COUNTED = ("adapter_parameters", "epochs_before", "student_epochs", "teacher_forwards")
"""Costs that are counted, not timed."""

TIMES = ("s", "ms", "items/s", "J")
"""Units of measures that no two trainings have in common."""

SHOWN = 24
"""The longest text that is shown whole: any number, not a hash."""

Value = float | int | str | None


@dataclass(frozen=True)
class Judged:
    """A cell beside its repetition.

    `difference` is the first one found of anything deterministic. `changes` say what of
    the description changed since, `elsewhere` what of the machine is another one,
    `unknown` the measures on record that no plugin here takes: they are not compared.
    """

    cell: Cell
    verdict: Verdict
    new: Record | None = None
    interval: Prediction | None = None
    difference: str = ""
    changes: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    reason: str = ""

    @property
    def value(self) -> float | None:
        """The new headline value."""
        if self.new is None:
            return None
        return self.new.measures.get(self.new.headline.name)


def judge(
    done: Again, records: Mapping[str, Record], level: float, host: Host
) -> Judged:
    """What came of a cell, by the new records of its own run and of its teachers.

    Where description, machine and threads are those on record, every bit must be: the
    one exception are recipes that ask for less (`stack`, a GPU that is not
    `deterministic`). Else the new headline value must lie within the prediction
    interval, of this level, of the committed seeds. They share one teacher, and the
    new one has its own: the teacher's own variation is not in the interval.
    """
    cell = done.cell
    new = None if done.run is None else records.get(done.run.id)
    if done.run is None or new is None or new.status != "finished":
        why = done.why_not or (new and new.reason) or _why_none(done, records)
        return Judged(cell, "failed", new, reason=why)
    pairs = [(records[i], then) for i, then in done.then.items() if i in records]
    pairs.sort(key=lambda pair: pair[0].run.rank)  # what comes first is the cause
    apart = {key: why_apart(key, host) for _, then in pairs for key in measured(then)}
    differences = (first_difference(a, b, apart) for a, b in pairs)
    difference = next(filter(None, differences), "")
    now = [done.run, *done.teachers]
    changed = changes(now, [cell.run, *(t.run for t in cell.teachers)])
    elsewhere = list(dict.fromkeys(t for a, b in pairs for t in other_machine(a, b)))
    interval = prediction(cell.seeds, level) if cell.seeds else None
    verdict: Verdict = "identical"
    if difference and not changed and not elsewhere and _keeps_bits(cell.record):
        verdict = "differs"
    elif difference:
        verdict = _verdict(interval, new.measures.get(new.headline.name))
    return Judged(
        cell,
        verdict,
        new,
        interval,
        difference,
        changes=tuple(changed),
        elsewhere=tuple(elsewhere),
        unknown=tuple(key for key, why in apart.items() if why == UNKNOWN),
    )


def _why_none(done: Again, records: Mapping[str, Record]) -> str:
    """Why there is no record of its own: a teacher's failure, if it is that."""
    for record in (records.get(i) for i in done.then):
        if record is not None and record.status != "finished":
            return f"{record.run.label} {record.run.students[0]}: {record.reason}"
    return "it left no record"


def _keeps_bits(record: Record) -> bool:
    """Whether the same machine gives the same bits, by the recipe."""
    recipe = record.run.recipe
    if recipe.stack:  # rounding depends on who is trained beside it
        return False
    return record.environment.get("device") == "cpu" or recipe.deterministic


def _verdict(interval: Prediction | None, value: float | None) -> Verdict:
    if value is None:
        return "failed"
    holds = None if interval is None else interval.holds(value)
    if holds is None:
        return "no interval"
    return "within" if holds else "outside"


def other_machine(now: Record, then: Record) -> list[str]:
    """What may change bits and is not as it was when the record was made."""
    new, old = now.environment, then.environment
    return [
        f"{key} {old[key]}, here {new.get(key)}"
        if key in old
        else f"{key} not on record"
        for key in BITS
        if old.get(key) != new.get(key)
    ]


# --- bit for bit ----------------------------------------------------------------------


UNKNOWN = "unknown"


def measured(record: Record) -> list[str]:
    """The names of its numbers."""
    return sorted({*record.measures, *record.lists})


def why_apart(key: str, host: Host) -> str:
    """Why a number of a record is not compared, or "".

    It is a time, or depends on times, or it is of a measure that is UNKNOWN here.
    """
    name = measure_of(key, host.names("measures"))
    if not name:
        return UNKNOWN
    unit = host.get("measures", name).thing.unit
    return f"in {unit}" if unit in TIMES else ""


def first_difference(
    new: Record, old: Record, apart: Mapping[str, str] = MappingProxyType({})
) -> str:
    """The first thing that is not the same bit for bit, with both values; or "".

    Curves epoch by epoch, then what was measured in the end, but for what `apart` has a
    reason against; no costs but those that are counted. A measure that is new since the
    record is no difference.
    """
    run = old.run
    who = f"teacher {run.students[0]} #{run.seed}: " if run.is_teacher else ""
    for what, then, now in _values(new, old, apart):
        if then != now:
            return f"{who}{what} is {_text(now)}, on record {_text(then)}"
    return ""


def _values(
    new: Record, old: Record, apart: Mapping[str, str]
) -> Iterator[tuple[str, Value, Value]]:
    """What is compared: its name, as it was, as it is."""
    yield "status", old.status, new.status
    yield from _curves(new.curves, old.curves)
    for name in sorted(old.measures):
        if not apart.get(name):
            yield name, old.measures[name], _of(new.measures, name)
    for name in sorted(old.lists):
        if not apart.get(name):
            for k, (then, now) in enumerate(_pairs(old.lists, new.lists, name)):
                yield f"{name}[{k}]", then, now
    for name in COUNTED:
        if name in old.cost:
            yield name, old.cost[name], _of(new.cost, name)
    yield "test_items", old.test_items, new.test_items
    if old.correct != new.correct:
        unlike = _unlike(old.correct, new.correct)
        yield f"correct (unlike for {unlike} items)", old.correct, new.correct
    if old.weights_sha256 is not None:
        yield "weights_sha256", old.weights_sha256, new.weights_sha256


def _curves(
    new: Mapping[str, list[float | None]], old: Mapping[str, list[float | None]]
) -> Iterator[tuple[str, Value, Value]]:
    names = sorted({*new, *old})
    epochs = max((len(c) for c in (*new.values(), *old.values())), default=0)
    for epoch in range(epochs):
        for name in names:
            then, now = (_at(curves.get(name), epoch) for curves in (old, new))
            yield f"{name} of epoch {epoch + 1}", then, now


MISSING = "missing"


def _at(curve: Sequence[float | None] | None, epoch: int) -> Value:
    there = curve is not None and epoch < len(curve)
    return curve[epoch] if curve is not None and there else MISSING


def _of(values: Mapping[str, float | None], name: str) -> Value:
    return values.get(name, MISSING)


def _pairs(
    old: Mapping[str, list[float | None]],
    new: Mapping[str, list[float | None]],
    name: str,
) -> Iterator[tuple[Value, Value]]:
    return zip_longest(old[name], new.get(name, ()), fillvalue=MISSING)


def _unlike(one: str | None, other: str | None) -> str:
    """The number of test items that two bit masks do not say the same of."""
    if one is None or other is None:
        return "all"
    a, b = base64.b64decode(one), base64.b64decode(other)
    if len(a) != len(b):
        return "all"
    return str((int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_count())


def _text(value: Value) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= SHOWN else f"{text[:12]}..."
