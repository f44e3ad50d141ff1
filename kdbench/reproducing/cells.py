"""The committed cells of some folders, and a random handful of them.

A cell is one finished run of a student: dataset, pair, strategy and seed. It is known
with the records of its teachers, which are trained again too.
"""

from __future__ import annotations

import os
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdbench.api import UserError, unknown
from kdbench.data.checks import loaded
from kdbench.execute import find_device
from kdbench.layout import lacks
from kdbench.plugins import Host
from kdbench.records import Record, Run, digest
from kdbench.report.formats import plural
from kdbench.store import file_name, load

RUNS = f"{'[0-9a-f]' * 12}.json"
"""What the records of runs are called."""


@dataclass(frozen=True)
class Cell:
    """A committed run, with what it takes to do it again.

    `seeds` are the headline's values of all seeds with the same description, its own
    one too; `sources` are the records of the runs that a compressed student was made
    of, the one that it starts from first.
    """

    folder: Path
    record: Record
    teachers: tuple[Record, ...]
    sources: tuple[Record, ...] = ()
    seeds: tuple[float, ...] = ()

    @property
    def run(self) -> Run:
        return self.record.run

    @property
    def title(self) -> str:
        run = self.run
        return f"{run.dataset}/{run.pair}/{run.label}#{run.seed}"

    @property
    def device(self) -> str:
        return str(self.record.environment.get("device") or "cpu")

    @property
    def value(self) -> float | None:
        """The headline's."""
        return self.record.measures.get(self.record.headline.name)

    @property
    def costs(self) -> dict[tuple[Path, str], float]:
        """Seconds of each training that it takes, by folder and run.

        Of a compressed student the cost on record is that of all its trainings.
        """
        records = (*self.teachers, self.record)
        return {(self.folder, one.id): _seconds(one) for one in records}


def _seconds(record: Record) -> float:
    """What the training took by its record, with its tests on the way."""
    return sum(record.cost.get(key) or 0.0 for key in ("train_s", "evaluation_s"))


@dataclass
class Found:
    """The cells that can be done again here.

    `problems` say what of a folder is not whole, `left_out` which cells cannot be done
    here, and why; `items` are the training items of each dataset.
    """

    cells: list[Cell] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    items: dict[str, int] = field(default_factory=dict)


def folders_in(places: Iterable[Path]) -> list[Path]:
    """Each place that holds records, and of any other one those below that do.

    Raises UserError, with near matches, for a place that is not there or holds none.
    """
    found: dict[Path, None] = {}
    for place in places:
        if not place.is_dir():
            beside = [str(one) for one in place.parent.glob("[!.]*") if one.is_dir()]
            raise unknown("folder", str(place), beside, str(place.parent))
        below = _below(place)
        if not below:
            raise UserError(f"no record in {place}, nor in a folder below it")
        found |= dict.fromkeys(below)
    return list({one.resolve(): one for one in found}.values())


def _below(place: Path) -> list[Path]:
    """The place itself where it holds records, else the folders below that do."""
    found = []
    for name, inside, _files in os.walk(place):  # follows no links below it
        inside.sort()
        if any(Path(name).glob(RUNS)):
            found.append(Path(name))
            inside.clear()
    return found


# --- what is committed ----------------------------------------------------------------


def read_cells(folders: Sequence[Path], chosen: Mapping[str, Sequence[str]]) -> Found:
    """The cells of these folders that `chosen` names, and what of them is not whole.

    `chosen` has names by "strategy", "pair" and "dataset". Raises UserError for one
    that no cell has, and where there is no cell.
    """
    found = Found()
    every: list[Cell] = []
    for folder in folders:
        results = load([folder])
        found.problems += [f"{path}: {reason}" for path, reason in results.damaged]
        if results.unsealed:
            many = f"{folder}: {plural(results.unsealed, 'record')} without a checksum"
            files = len(results.records) + len(results.speed) + len(results.cards)
            if results.unsealed < files:
                found.problems.append(f"{many}, which others there have")
            else:
                found.notes.append(f"{many}, as older versions wrote them")
        whole, problems = _cells(folder, results.records)
        every += whole
        found.problems += problems
    for kind, names in chosen.items():
        _check_names(kind, names, every)
    found.cells = [cell for cell in every if _is_chosen(cell, chosen)]
    if not found.cells:
        where = ", ".join(map(str, folders))
        what = "run of that kind" if any(chosen.values()) else "run of a student"
        bad = f" ({found.problems[0]})" if found.problems else ""
        raise UserError(f"no {what} has finished in {where}{bad}")
    return found


def _cells(folder: Path, records: Sequence[Record]) -> tuple[list[Cell], list[str]]:
    """The cells of one folder, and what teachers and sources lack a record."""
    known = {record.id: record for record in records}
    finished = [r for r in records if r.status == "finished" and not r.run.is_teacher]
    alike: dict[str, list[Record]] = {}
    for record in finished:
        alike.setdefault(_description(record.run), []).append(record)
    cells, problems = [], []
    for same in alike.values():
        values = [one.measures.get(one.headline.name) for one in same]
        seeds = tuple(value for value in values if value is not None)
        for record in same:
            run = record.run
            sources = _sources(run, known)
            alone = [f"teacher {i}" for i in run.teacher_runs if i not in known]
            if len(sources) < run.rank - 1:
                alone.append(f"source {(sources[-1].run if sources else run).source}")
            file = folder / file_name(record)
            if not run.students or not run.teachers:
                problems.append(f"{file}: it names no student or no teacher")
                continue
            if alone:
                problems.append(f"{file}: no record of its {alone[0]}")
                continue
            teachers = tuple(known[i] for i in run.teacher_runs)
            cells.append(Cell(folder, record, teachers, sources, seeds))
    return cells, problems


def _sources(run: Run, known: Mapping[str, Record]) -> tuple[Record, ...]:
    """What the student was made of, as far as there are records of it."""
    before = known.get(run.source)
    return () if before is None else (before, *_sources(before.run, known))


def _description(run: Run) -> str:
    """What the runs of several seeds have in common."""
    return digest([run.setting, run.label, run.strategy, run.params, run.code])


def _names(cell: Cell) -> dict[str, set[str]]:
    """What the cell may be called by."""
    run = cell.run
    plain = "/".join(part for part in (run.strategy, run.compression) if part)
    strategies = {run.label, plain}
    return {"strategy": strategies, "pair": {run.pair}, "dataset": {run.dataset}}


def _is_chosen(cell: Cell, chosen: Mapping[str, Sequence[str]]) -> bool:
    own = _names(cell)
    return all(own[kind] & set(names) for kind, names in chosen.items() if names)


def _check_names(kind: str, names: Sequence[str], cells: Sequence[Cell]) -> None:
    known = {name for cell in cells for name in _names(cell)[kind]}
    for name in names:
        if name not in known:
            raise unknown(kind, name, known, "these folders")


# --- what can be done again here ------------------------------------------------------


def keep_possible(found: Found, host: Host, data_dir: Path | None) -> Found:
    """What can be trained here: its plugins, its device and its data are there.

    What is left out is said. Raises UserError where nothing is left.
    """
    reasons: dict[str, list[Cell]] = {}
    kept = []
    data: dict[str, str] = {}
    for cell in found.cells:
        why = _why_impossible(cell, host)
        why = why or _why_no_data(cell.run.dataset, host, data_dir, data, found.items)
        if why:
            reasons.setdefault(why, []).append(cell)
        else:
            kept.append(cell)
    for why, cells in reasons.items():
        found.left_out.append(f"{plural(len(cells), 'cell')}: {why}")
    if not kept:
        said = "\n  ".join(found.left_out)
        raise UserError(f"none of these cells can be trained here:\n  {said}")
    found.cells = kept
    return found


def _why_impossible(cell: Cell, host: Host) -> str:
    """What is not installed, or the device that is not there; "" for nothing."""
    run = cell.run
    wanted = [("strategies", run.strategy), ("datasets", run.dataset)]
    wanted += [("models", name) for name in (*run.students, *run.teachers)]
    wanted += [("compressions", name) for name in run.compression.split("/") if name]
    try:
        for kind, name in wanted:
            thing = host.get(kind, name).thing
            why = lacks(thing) if kind == "compressions" else None
            if why:
                return f"{name}: {why}"
        find_device(cell.device)
    except UserError as error:
        return str(error)
    return ""


def _why_no_data(
    name: str,
    host: Host,
    data_dir: Path | None,
    known: dict[str, str],
    items: dict[str, int],
) -> str:
    """Why the dataset cannot be had, or ""; each is loaded once, and counted."""
    if name not in known:
        try:
            data = loaded(host.dataset(name), data_dir, False)
            items[name] = len(data.train.targets)
            known[name] = ""
        except UserError as error:
            known[name] = str(error)
    return known[name]


# --- the draw -------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """The cells drawn, what they take in seconds, and how many would take too long."""

    cells: tuple[Cell, ...]
    seconds: float
    too_long: int = 0


def draw(
    cells: Collection[Cell], count: int, seed: int, budget_s: float | None = None
) -> Drawn:
    """A random choice: as many of each folder, as far as they go.

    With a budget, a cell that would take longer than what is left of it is passed over;
    `too_long` counts those that alone would take longer than all of it. A teacher that
    two cells share costs once.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret: it is to be repeated
    room = float("inf") if budget_s is None else budget_s
    heaps: dict[Path, list[Cell]] = {}
    too_long = 0
    for cell in sorted(cells, key=lambda c: (str(c.folder), c.record.id)):
        if sum(cell.costs.values()) > room:
            too_long += 1
        else:
            heaps.setdefault(cell.folder, []).append(cell)
    order = list(heaps.values())
    chance.shuffle(order)
    for heap in order:
        chance.shuffle(heap)
    drawn: list[Cell] = []
    paid: dict[tuple[Path, str], float] = {}
    while any(order) and len(drawn) < count:
        for heap in order:
            if heap and len(drawn) < count:
                cell = heap.pop()
                if sum((paid | cell.costs).values()) <= room:
                    drawn.append(cell)
                    paid |= cell.costs
    return Drawn(tuple(drawn), sum(paid.values()), too_long)
