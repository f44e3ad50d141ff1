"""Record <-> one JSON file <-> DataFrame.

A folder of results is flat: `<run-id>.json` for each run and
`speed-<model>-<dataset>-<digest>.json` for each architecture and machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from kdbench.api import UserError
from kdbench.atomic import write_whole
from kdbench.cards import Card
from kdbench.records import Record, SpeedRecord, digest

if TYPE_CHECKING:
    import pandas as pd

Environment = Mapping[str, str | int | float | None]
Kind = TypeVar("Kind", Record, SpeedRecord)


@dataclass(frozen=True, eq=False)
class Results:
    """The records of one or more folders.

    `damaged` pairs each unreadable file with a one-line reason. `superseded` counts
    records left out because a newer one describes the same cell. `cards` describe the
    strategies. Results are equal to themselves only.
    """

    records: list[Record]
    speed: list[SpeedRecord]
    damaged: list[tuple[Path, str]]
    superseded: int
    cards: list[Card] = field(default_factory=list)


def machine(environment: Environment) -> tuple[str, str, str]:
    """What times may be compared within: (CPU, device, GPU), "" where unknown."""
    cpu, device, gpu = (str(environment.get(k) or "") for k in ("cpu", "device", "gpu"))
    return cpu, device, gpu


def file_name(record: Record | SpeedRecord) -> str:
    """The name of the record's file: one run, or one model on one machine."""
    if isinstance(record, Record):
        return f"{record.id}.json"
    identity = [record.model, record.dataset, *machine(record.environment)]
    words = re.sub(r"[^\w.-]+", "_", f"{record.model}-{record.dataset}")
    return f"speed-{words[:100]}-{digest(identity, 8)}.json"  # a path may be long


def write_record(folder: Path, record: Record | SpeedRecord) -> Path:
    """Write the record into `folder`, whole or not at all, and return its path.

    Raises Unwritable.
    """
    path = folder / file_name(record)
    data = record.model_dump(mode="json")
    text = json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_whole(path, text.encode())
    return path


def read_record(path: Path) -> Record | SpeedRecord:
    """Read one record. Raises UserError, with the reason, where it is none."""
    try:
        return _parse(path)
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: {_reason(error)}") from None


def runs_in(folder: Path) -> list[Record]:
    """Every record of a run in a folder that can be read, of any age."""
    found = []
    for path in _files(folder):
        with suppress(ValueError, OSError, RecursionError):  # damaged: it is run again
            record = _parse(path)
            if isinstance(record, Record):
                found.append(record)
    return found


def load(folders: Sequence[Path], wanted: Set[str] = frozenset()) -> Results:
    """Read every record in `folders` (not in folders below them).

    Of several records of one cell (setting, label and seed) one whose id is `wanted` is
    kept, else the newest (clocks may jump, ids do not), and every teacher that a kept
    record refers to. Raises UserError for a folder that is
    missing or holds no record, and where no folder holds a run.
    """
    records: list[Record] = []
    speed: list[SpeedRecord] = []
    damaged: list[tuple[Path, str]] = []
    for folder in map(Path, folders):
        before, bad = len(records) + len(speed), len(damaged)
        for path in _files(folder):
            try:
                record = _parse(path)
            except (ValueError, OSError, RecursionError) as error:
                damaged.append((path, _reason(error)))
                continue
            if isinstance(record, Record):
                records.append(record)
            else:
                speed.append(record)
        if len(records) + len(speed) == before:
            raise _empty(folder, damaged[bad:])
    if not records and damaged:
        raise _empty(Path(folders[0]), damaged)
    if not records:
        where = ", ".join(str(folder) for folder in folders) or "no folder given"
        raise UserError(f"no run in {where}; do 'kdbench run --out DIR' first")
    kept = _newest_runs(records, wanted)
    newest_speed = _newest(
        speed, lambda s: (s.model, s.dataset, machine(s.environment))
    )
    left_out = len(records) - len(kept) + len(speed) - len(newest_speed)
    return Results(kept, newest_speed, damaged, left_out)


def load_results(folder: Path | str) -> pd.DataFrame:
    """One row for each run in `folder`, teachers included.

    Columns: id, dataset, pair, recipe, strategy, label, family, seed, status, reason,
    teachers and students (names joined by "+"), every measure by its name, every cost
    as cost_NAME and every hyper-parameter as param_NAME; missing values are NaN.
    """
    import pandas as pd

    return pd.DataFrame([_row(record) for record in load([Path(folder)]).records])


def _row(record: Record) -> dict[str, object]:
    run = record.run
    row: dict[str, object] = {
        "id": record.id,
        "dataset": run.dataset,
        "pair": run.pair,
        "recipe": run.recipe.sentence(),
        "strategy": run.strategy,
        "label": run.label,
        "family": record.family,
        "seed": run.seed,
        "status": record.status,
        "reason": record.reason,
        "teachers": "+".join(run.teachers),
        "students": "+".join(run.students),
    }
    fixed = set(row)
    for name, value in record.measures.items():
        row[f"measure_{name}" if name in fixed else name] = value
    row |= {f"cost_{name}": value for name, value in record.cost.items()}
    return row | {f"param_{name}": value for name, value in run.params.items()}


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(
            f"no results folder {folder}; check the path, or do "
            f"'kdbench run --out {folder}' first"
        )
    return sorted(p for p in folder.glob("*.json") if not p.name.startswith("."))


def _empty(folder: Path, damaged: list[tuple[Path, str]]) -> UserError:
    if damaged:
        path, reason = damaged[0]
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        return UserError(
            f"no readable record in {folder} ({path.name}: {reason}{more}); "
            "delete the damaged files and run again"
        )
    below = sorted({path.parent for path in folder.glob("*/*.json")})
    if below:
        options = " or ".join(str(path) for path in below[:3])
        return UserError(f"no record in {folder} itself; did you mean {options}?")
    return UserError(
        f"no record in {folder}; do 'kdbench run --out {folder}' first, or give the "
        "folder that holds the *.json records"
    )


def _parse(path: Path) -> Record | SpeedRecord:
    data = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(data, dict) and "run" in data:
        return Record.model_validate(data)
    if isinstance(data, dict) and "model" in data:
        return SpeedRecord.model_validate(data)
    raise ValueError("not a kdbench record")


def _reason(error: Exception) -> str:
    """The error in one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg']}" if place else str(first["msg"])
    if isinstance(error, json.JSONDecodeError):
        return f"not complete JSON ({error.msg}, line {error.lineno})"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return " ".join(str(error).split())


def _age(record: Record | SpeedRecord) -> tuple[float, str]:
    """Sorts by time of finishing; a time without a zone is taken as UTC."""
    try:
        time = datetime.fromisoformat(record.finished_at)
    except ValueError:
        return (0.0, record.finished_at)
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp(), "")


def _newest(records: Iterable[Kind], key: Callable[[Kind], Hashable]) -> list[Kind]:
    newest: dict[Hashable, Kind] = {}
    for record in sorted(records, key=_age):
        newest[key(record)] = record
    return list(newest.values())


def _cell(record: Record) -> Hashable:
    run = record.run
    models = (run.teachers, run.students) if run.is_teacher else ()
    return (run.setting, run.label, run.seed, run.is_teacher, models)


def _newest_runs(records: Sequence[Record], wanted: Set[str]) -> list[Record]:
    """The wanted or newest record of each cell, and teachers that these refer to."""
    asked = [record for record in records if record.id in wanted]
    cells = {_cell(record): record for record in _newest(records, _cell)}
    cells |= {_cell(record): record for record in _newest(asked, _cell)}
    kept = {record.id: record for record in cells.values()}
    by_id = {record.id: record for record in _newest(records, lambda r: r.id)}
    due = list(kept)
    while due:
        for teacher in by_id[due.pop()].run.teacher_runs:
            if teacher in by_id and teacher not in kept:
                kept[teacher] = by_id[teacher]
                due.append(teacher)
    return sorted(kept.values(), key=lambda r: (r.run.setting, r.run.label, r.run.seed))
