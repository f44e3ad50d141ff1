"""A committed cell -> the run that it would be today, and the jobs that train it.

From its description alone: no suite file is read, which may have changed since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdbench.api import Pair, Strategy, UserError
from kdbench.choices import Choice
from kdbench.config import FineTuning, Suite
from kdbench.execute import make_jobs
from kdbench.job import Job
from kdbench.layout import Layout
from kdbench.plan import measure_of, planned
from kdbench.plugins import Host
from kdbench.records import Recipe, Record, Run
from kdbench.reproducing.cells import Cell
from kdbench.selections import Selection

CHECKPOINT_EVERY_S = 600.0


@dataclass(frozen=True)
class Recorded(Choice):
    """A strategy with the parameters of a record, in which presets are resolved."""

    presets: str = ""

    @property
    def preset(self) -> str:
        return self.presets

    def on(self, pair: Pair) -> tuple[Strategy, str | None]:  # noqa: ARG002
        return self.strategy, None


@dataclass(frozen=True)
class Again:
    """A cell, the run that it is today, and the jobs that train it with its teachers.

    `then` has the committed record of each run that is done again, by its id today.
    `why_not` says why the cell cannot be planned.
    """

    cell: Cell
    run: Run | None = None
    teachers: tuple[Run, ...] = ()
    jobs: tuple[Job, ...] = ()
    then: Mapping[str, Record] = field(default_factory=dict)
    why_not: str = ""


def again(
    cell: Cell, host: Host, items: Mapping[str, int], out: Path, data_dir: Path | None
) -> Again:
    """Plan the cell as `run` does, with nothing of it done before, into `out`.

    The engine gives a run the same bits alone as in company, so it is trained alone;
    each on as many threads as its record names.
    """
    try:
        layout = _laid_out(cell, host)
    except (UserError, ValidationError) as error:
        return Again(cell, why_not=str(error))
    if isinstance(layout, str):
        return Again(cell, why_not=layout)
    plan = planned(layout, {}, ())
    *sources, run = [one for one, _ in layout.runs.values()]
    teachers = tuple(layout.teachers[i] for i in run.teacher_runs)
    then = {run.id: cell.record}
    then |= {a.id: b for a, b in zip(teachers, cell.teachers, strict=False)}
    then |= {a.id: b for a, b in zip(reversed(sources), cell.sources, strict=True)}
    jobs = make_jobs(plan, host, items, out, data_dir, cell.device, CHECKPOINT_EVERY_S)
    return Again(
        cell,
        run=run,
        teachers=teachers,
        jobs=tuple(_as_recorded(job, then, cell.record, host) for job in jobs),
        then=then,
    )


def _as_recorded(
    job: Job, then: Mapping[str, Record], default: Record, host: Host
) -> Job:
    """The job with the threads and the optional measures of its run's record."""
    [run] = job.group.runs
    record = then.get(run.id, default)
    threads = record.environment.get("threads")
    names = host.names("measures")
    taken = {measure_of(key, names) for key in (*record.measures, *record.lists)}
    asked = [n for n in sorted(taken - {""}) if host.get("measures", n).thing.optional]
    return replace(
        job,
        threads=threads if isinstance(threads, int) and threads > 0 else job.threads,
        measures=tuple(asked),
    )


def merged(cells: Iterable[Again]) -> list[Job]:
    """The jobs of these cells of one folder; what two of them share is done once."""
    jobs = {job.id: job for one in cells for job in one.jobs}
    return sorted(jobs.values(), key=lambda job: job.group.runs[0].rank)


def _laid_out(cell: Cell, host: Host) -> Layout | str:
    """The grid of this one cell, its own run last; or why it has none."""
    run = cell.run
    kind = host.strategy(run.strategy)
    strategy = kind.configured(run.params)
    pair = Pair(
        name=run.pair,
        teachers=run.teachers,
        students=run.students[: strategy.students],
        assistants=run.students[strategy.students :],
        summary="as it was recorded",
    )
    part = Suite(
        name="reproduced",
        datasets=(run.dataset,),
        pairs=(run.pair,),
        strategies=(run.strategy,),
        seeds=run.seed + 1,
        recipe=_recipe(cell),
        fine_tuning=_fine_tuning(cell),
    )
    layout = Layout(host, part)
    chain = tuple(name for name in run.compression.split("/") if name)
    for done in range(len(chain) + 1):
        choice = Recorded(
            Selection(run.strategy, run.params),
            strategy,
            run.label.partition("/")[0],
            chain[:done],
            presets=run.preset,
        )
        layout.add(part, host.dataset(run.dataset), pair, choice)
    for skipped, reason in layout.skipped.values():
        if skipped.seed == run.seed:
            return reason
    return _only(layout, run, len(chain))


def _only(layout: Layout, wanted: Run, steps: int) -> Layout | str:
    """The layout without other seeds, under the record's own words."""
    runs = [(r, s) for r, s in layout.runs.values() if r.seed == wanted.seed]
    if len(runs) <= steps:
        return f"{wanted.label} cannot be planned here"
    words = {"label": wanted.label, "system": wanted.system, "note": wanted.note}
    last, strategy = runs[-1]
    runs[-1] = (last.model_copy(update=words), strategy)
    layout.runs = {run.id: (run, strategy) for run, strategy in runs}
    return layout


def _recipe(cell: Cell) -> Recipe:
    """The suite's recipe that gives student and teachers the rates on record."""
    table = cell.run.table_recipe
    rates = {one.run.students[0]: one.run.recipe.lr for one in cell.teachers}
    rates |= table.lr_by_model | {cell.run.students[0]: table.lr}
    return table.model_copy(update={"lr_by_model": dict(sorted(rates.items()))})


def _fine_tuning(cell: Cell) -> FineTuning:
    """That by which a compressed student, or what it was made of, was trained."""
    for run in (cell.run, *(one.run for one in cell.sources)):
        if run.beside is not None:
            tuned = run.recipe
            given: dict[str, Any] = {"epochs": tuned.epochs, "lr": tuned.lr}
            if tuned.schedule != run.beside.schedule:  # else it is the table's
                given["schedule"] = tuned.schedule
            return FineTuning(**given)
    return FineTuning()


# --- what changed since ---------------------------------------------------------------


HANDLED = {"code", "params", "recipe", "beside", "teacher_runs", "source"}
HANDLED |= {"label", "system", "note"}
"""Fields of a run that are compared part by part, by way of others, or are words."""


def changes(now: Sequence[Run], then: Sequence[Run]) -> list[str]:
    """Which parts of the description differ: of the run first, then of its teachers."""
    found: list[str] = []
    for a, b in zip(now, then, strict=False):
        whose = f" of teacher {b.students[0]}" if b.is_teacher else ""
        found += [text + whose for text in _changes(a, b) if text not in found]
    return found


def _changes(now: Run, then: Run) -> list[str]:
    if now.id == then.id:
        return []
    strategy = "scratch" if then.is_teacher else then.strategy
    found = [
        f"code of {strategy if what == 'strategy' else what}"
        for what in sorted(now.code.keys() | then.code.keys())
        if now.code.get(what) != then.code.get(what)
    ]
    for name in Run.model_fields:
        if name not in HANDLED:
            found += _change(name, getattr(then, name), getattr(now, name))
    found += _changes_within("parameter", then.params, now.params)
    found += _changes_within("recipe", then.recipe.described(), now.recipe.described())
    if then.beside and now.beside:
        before, after = then.beside.described(), now.beside.described()
        found += _changes_within("table recipe", before, after)
    return found


def _changes_within(
    what: str, then: Mapping[str, object], now: Mapping[str, object]
) -> list[str]:
    return [
        text
        for key in sorted({*then, *now})
        for text in _change(f"{what} {key}", then.get(key), now.get(key))
    ]


def _change(what: str, then: object, now: object) -> list[str]:
    return [] if then == now else [f"{what}: {then!r}, now {now!r}"]
