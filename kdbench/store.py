"""Record <-> one JSON file <-> DataFrame.

A folder of results is flat: `<run-id>.json` for each run,
`speed-<model>-<dataset>-<digest>.json` for each architecture and machine, and
`strategy-<name>-<digest>.json` for each version of a strategy's code. Each file begins
with a checksum of the rest, by which one that was edited by hand is known.
"""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import re
from collections import Counter
from collections.abc import (
    Callable,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Set,
)
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from kdbench.api import UserError
from kdbench.atomic import write_whole
from kdbench.cards import Card
from kdbench.records import Record, SpeedRecord, digest

SEAL = b'{\n "checksum": "%s",\n'
"""How a file begins, with the SHA-256 of what follows."""
SEALED = len(SEAL) - len("%s") + 64

Environment = Mapping[str, str | int | float | None]
Kind = TypeVar("Kind", Record, SpeedRecord)


@dataclass(frozen=True, eq=False)
class Results:
    """The records of one or more folders.

    `damaged` pairs each unreadable file with a one-line reason. `superseded` counts
    records left out because a newer one describes the same cell. `cards` describe the
    strategies. `unsealed` counts files without a checksum, which older versions wrote.
    Results are equal to themselves only.
    """

    records: list[Record]
    speed: list[SpeedRecord]
    damaged: list[tuple[Path, str]]
    superseded: int
    cards: list[Card] = field(default_factory=list)
    unsealed: int = 0

    def only(self, ids: Set[str]) -> Results:
        """The results of these runs."""
        return replace(self, records=[r for r in self.records if r.id in ids])


def machine(environment: Environment) -> tuple[str, str, str]:
    """What times may be compared within: (CPU, device, GPU), "" where unknown."""
    cpu, device, gpu = (str(environment.get(k) or "") for k in ("cpu", "device", "gpu"))
    return cpu, device, gpu


def file_name(record: Record | SpeedRecord | Card) -> str:
    """The name of the record's file: one run, or one model on one machine."""
    if isinstance(record, Record):
        return f"{record.id}.json"
    if isinstance(record, Card):
        words = re.sub(r"[^\w.-]+", "_", record.strategy)[:100]
        return f"strategy-{words}-{digest([record.strategy, record.code], 8)}.json"
    identity = [record.model, record.dataset, *machine(record.environment)]
    words = re.sub(r"[^\w.-]+", "_", f"{record.model}-{record.dataset}")
    return f"speed-{words[:100]}-{digest(identity, 8)}.json"  # a path may be long


def write_record(folder: Path, record: Record | SpeedRecord | Card) -> Path:
    """Write the record into `folder`, whole or not at all, and return its path.

    Raises Unwritable.
    """
    path = folder / file_name(record)
    body = _body(record.model_dump(mode="json"))
    write_whole(path, _seal(body) + body)
    return path


def read_record(path: Path) -> Record | SpeedRecord | Card:
    """Read one record. Raises UserError, with the reason, where it is none."""
    try:
        return _parse(*_read(path))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: {_reason(error)}") from None


def runs_in(folder: Path) -> list[Record]:
    """Every record of a run in a folder that can be read, of any age."""
    found = []
    for path in _files(folder):
        with suppress(ValueError, OSError, RecursionError):  # damaged: it is run again
            record = _parse(*_read(path))
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
    found = _Found([], [], [], [])
    once = {Path(folder).resolve(): Path(folder) for folder in folders}
    with _without_collection():
        for folder in once.values():
            before, bad = found.kept, len(found.damaged)
            for path in _files(folder):
                found.read(path)
            if found.kept == before:
                raise _empty(folder, found.damaged[bad:])
    if not found.records and found.damaged:
        raise _empty(Path(folders[0]), found.damaged)
    if not found.records:
        where = ", ".join(str(folder) for folder in folders) or "no folder given"
        raise UserError(f"no run in {where}; do 'kdbench run --out DIR' first")
    kept = _newest_runs(found.records, wanted)
    speed = _newest(found.speed, lambda s: (s.model, s.dataset, machine(s.environment)))
    copies = {(r.id, r.finished_at) for r in found.records}
    left_out = len(copies) - len(kept) + len(found.speed) - len(speed)
    cards = {(card.strategy, card.code): card for card in found.cards}
    unsealed = len(found.unsealed)
    return Results(kept, speed, found.damaged, left_out, list(cards.values()), unsealed)


@dataclass(frozen=True)
class _Found:
    """What the files of some folders hold."""

    records: list[Record]
    speed: list[SpeedRecord]
    cards: list[Card]
    damaged: list[tuple[Path, str]]
    unsealed: list[Path] = field(default_factory=list)

    @property
    def kept(self) -> int:
        return len(self.records) + len(self.speed)

    def read(self, path: Path) -> None:
        try:
            text, sealed = _read(path)
            one = _parse(text, sealed)
        except (ValueError, OSError, RecursionError) as error:
            self.damaged.append((path, _reason(error)))
            return
        if not sealed and b'"checksum"' not in text:
            self.unsealed.append(path)
        if isinstance(one, Record):
            self.records.append(one)
        elif isinstance(one, SpeedRecord):
            self.speed.append(one)
        else:
            self.cards.append(one)


def check_protocol(results: Results) -> None:
    """Raise UserError unless all records obey one protocol version."""
    versions = Counter(record.run.protocol for record in results.records)
    if len(versions) > 1:
        counts = ", ".join(f"{n} of protocol {v}" for v, n in sorted(versions.items()))
        raise UserError(
            f"records of different protocol versions cannot stand in one report "
            f"({counts}); keep them in separate folders, or run again"
        )


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


def _read(path: Path) -> tuple[bytes, bool]:
    """The file without its checksum and True, if that is right; else all and False."""
    with open(path, "rb") as file:  # noqa: PTH123  # a Path costs as much as reading
        text = file.read()
    if b"\r" in text:  # checked out with the line endings of another system
        text = text.replace(b"\r\n", b"\n")
    body = memoryview(text)[SEALED:]
    if text[:SEALED] != _seal(body):
        return text, False
    return b"".join((b"{\n", body)), True


def _parse(text: bytes, sealed: bool) -> Record | SpeedRecord | Card:
    if sealed and b'\n "run": {\n' in text:
        return _consistent(Record.model_validate_json(text))
    data = json.loads(text.decode())
    if isinstance(data, dict) and "checksum" in data:
        known = data.pop("checksum")
        if _seal(_body(data)) != SEAL % str(known).encode():
            raise ValueError("edited after it was written: not what its checksum is of")
    if isinstance(data, dict) and "run" in data:
        return _consistent(Record.model_validate(data))
    if isinstance(data, dict) and "model" in data:
        return SpeedRecord.model_validate(data)
    if isinstance(data, dict) and "formula" in data:
        return Card.model_validate(data)
    raise ValueError("not a kdbench record")


def _body(data: Mapping[str, object]) -> bytes:
    """A file but for its first two lines."""
    text = json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n"
    return text.encode().removeprefix(b"{\n")


def _seal(body: bytes | memoryview) -> bytes:
    """Its first two lines."""
    return SEAL % hashlib.sha256(body).hexdigest().encode()


def _consistent(record: Record) -> Record:
    """The record, if its accuracy is that of its items; else ValueError."""
    top1 = record.measures.get("top1")
    if record.correct is None or top1 is None or not record.test_items:
        return record
    try:
        bits = int.from_bytes(base64.b64decode(record.correct, validate=True), "big")
    except ValueError as error:
        raise ValueError(f"correct: not base64 ({error})") from None
    counted = 100 * bits.bit_count() / record.test_items
    if abs(counted - top1) > 1e-6:
        raise ValueError(
            f"edited: its top1 is {top1:g}, but {counted:g}% of its items are correct"
        )
    return record


@contextmanager
def _without_collection() -> Iterator[None]:
    """Make many objects that stay, without looking for garbage among them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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


def _cell(record: Record) -> tuple[object, ...]:
    """What tells it from others of its results, in the order of these."""
    run = record.run
    models = (run.teachers, run.students) if run.is_teacher else ()
    return (run.setting, run.label, run.seed, run.is_teacher, models)


def _newest_runs(records: Sequence[Record], wanted: Set[str]) -> list[Record]:
    """The wanted or newest record of each cell, and teachers that these refer to."""
    by_cell: dict[tuple[object, ...], Record] = {}
    for record in sorted(records, key=lambda r: (r.id in wanted, _age(r))):
        by_cell[_cell(record)] = record
    cells = {record.id: cell for cell, record in by_cell.items()}
    kept = {record.id: record for record in by_cell.values()}
    by_id = {record.id: record for record in _newest(records, lambda r: r.id)}
    due = list(kept)
    while due:
        for teacher in by_id[due.pop()].run.teacher_runs:
            if teacher in by_id and teacher not in kept:
                kept[teacher] = by_id[teacher]
                due.append(teacher)
    return [kept[i] for i in sorted(kept, key=lambda i: cells.get(i) or _cell(kept[i]))]
