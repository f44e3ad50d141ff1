"""`kdbench reproduce`: published records, trained again and compared.

Nothing heavy is imported before the command runs.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdbench.plugins_cli import host_of_command

if TYPE_CHECKING:
    from rich.console import Console

    from kdbench.job import Job
    from kdbench.plugins import Host
    from kdbench.report.tables import Table
    from kdbench.reproducing import Outcome
    from kdbench.reproducing.cells import Drawn, Found
    from kdbench.reproducing.judging import Judged, Verdict
    from kdbench.stats import Prediction

BROKEN = 1
INTERRUPTED = 130
DRAWS = 1_000_000


def reproduce(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER...",
            help="Folders of records, or one that has such folders below it.",
        ),
    ],
    cells: Annotated[
        int, typer.Option(min=1, help="How many cells to train again.")
    ] = 5,
    draw: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="NUMBER", help="Repeat the draw of this number (printed)."
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="MINUTES",
            help="Draw no more than this takes, by the times on record.",
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy", "-s", metavar="NAME", help="Only these strategies or labels."
        ),
    ] = None,
    pair: Annotated[
        list[str] | None, typer.Option("--pair", "-p", help="Only these pairs.")
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", "-d", help="Only these datasets."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="KDBENCH_DATA",
            exists=True,
            file_okay=False,
            help="Folder that holds the datasets.",
        ),
    ] = None,
    executor: Annotated[str, typer.Option(help="Where the cells run.")] = "local",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a random handful of published cells again, and compare.

    Bit for bit on the same kind of machine with the same code; elsewhere the new
    headline must lie where one more seed would. Exit 1 if any cell does not, or if a
    record is damaged or was edited.
    """
    from secrets import randbelow

    from rich.console import Console

    from kdbench.atomic import Unwritable
    from kdbench.engine.faults import DeviceLost
    from kdbench.report.terminal import wide_console
    from kdbench.reproducing import cells as published
    from kdbench.reproducing import reproduce as again
    from kdbench.selections import split_selections

    host = host_of_command()
    host.all("measures")  # every run needs them all
    start = host.get("executors", executor).thing.start
    given = {"strategy": strategy, "pair": pair, "dataset": dataset}
    chosen = {kind: split_selections(names or ()) for kind, names in given.items()}
    found = published.read_cells(published.folders_in(folders), chosen)
    published.keep_possible(found, host, data_dir)
    number = randbelow(DRAWS) if draw is None else draw
    budget_s = None if budget is None else 60 * budget
    drawn = published.draw(found.cells, cells, number, budget_s)
    console = Console(stderr=True, width=110) if as_json else wide_console()
    for line in _announcement(found, drawn, number, cells, budget):
        console.print(line, markup=False, highlight=False)
    try:
        outcome = again(
            drawn.cells, host, found.items, data_dir, _trainer(start, host, console)
        )
    except (DeviceLost, Unwritable) as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(BROKEN) from None
    if as_json:
        _print_json(outcome, found, drawn, number)
    else:
        _print(outcome, found, console)
    if outcome.interrupted:
        left = len(drawn.cells) - len(outcome.judged)
        typer.echo(f"interrupted: {left} of {len(drawn.cells)} not done", err=True)
        raise SystemExit(INTERRUPTED)
    raise SystemExit(0 if _is_whole(outcome, found) else BROKEN)


def _trainer(start: Any, host: Host, console: Console) -> Any:
    """What runs jobs, and shows how far they are."""
    from kdbench.progress import Progress
    from kdbench.stopping import Stopping

    def train(jobs: Sequence[Job]) -> None:
        stopping = Stopping()
        with Progress(console, jobs) as progress, stopping, stopping.gently():
            start(jobs, os.cpu_count() or 1, host, progress.see, stopping)

    return train


def _is_whole(outcome: Outcome, found: Found) -> bool:
    from kdbench.reproducing.judging import REPRODUCED

    good = all(one.verdict in REPRODUCED for one in outcome.judged)
    return good and bool(outcome.judged) and not found.problems


def _announcement(
    found: Found, drawn: Drawn, number: int, wanted: int, budget: float | None
) -> list[str]:
    """What is done again, what is not, and how to draw the same once more.

    Raises UserError where the budget has room for nothing.
    """
    from kdbench.api import UserError
    from kdbench.progress import clock
    from kdbench.report.formats import plural

    if not drawn.cells:
        raise UserError(
            f"each of the {plural(len(found.cells), 'cell')} takes longer than "
            f"--budget {budget:g} minutes"
        )
    places = {cell.folder for cell in found.cells}
    lines = [f"note: {text}" for text in found.notes]
    lines += [f"not whole: {text}" for text in found.problems]
    lines += [f"left out: {text}" for text in found.left_out]
    if drawn.too_long:
        many = plural(drawn.too_long, "cell")
        lines.append(f"left out: {many} longer than {budget:g} minutes each")
    if len(drawn.cells) < min(wanted, len(found.cells) - drawn.too_long):
        many = plural(len(drawn.cells), "cell")
        lines.append(f"note: the budget has room for no more than {many}")
    count, every = len(drawn.cells), plural(len(found.cells), "cell")
    lines.append(
        f"draw {number}: {count} of {every} in {plural(len(places), 'folder')}, about "
        f"{clock(drawn.seconds)} by the times on record; --draw {number} repeats it "
        "with the same folders and options"
    )
    lines += [
        f"  {cell.title}, with its teachers {clock(sum(cell.costs.values()))}"
        for cell in drawn.cells
    ]
    return lines


# --- what came of it ------------------------------------------------------------------


def _print(outcome: Outcome, found: Found, console: Console) -> None:
    from kdbench.report.terminal import print_table

    if outcome.judged:
        print_table(_table(outcome.judged), console)
    for line in [*_details(outcome), _last_line(outcome, found)]:
        console.print(line, markup=False, highlight=False)


def _table(judged: Sequence[Judged]) -> Table:
    from kdbench.report.tables import Cell, Column, Row, Table, word

    columns = (
        Column("cell", "Cell", numeric=False),
        Column("folder", "Folder", numeric=False, level=3),
        Column("committed", "Committed"),
        Column("new", "New"),
        Column("interval", "Interval", level=2),
        Column("verdict", "Verdict", numeric=False),
    )
    rows = []
    for one in judged:
        unit = one.cell.record.headline.unit
        rows.append(
            Row(
                (
                    word(one.cell.title),
                    word(str(one.cell.folder)),
                    Cell(one.cell.value, _shown(one.cell.value, unit)),
                    Cell(one.value, _shown(one.value, unit)),
                    word(_range(one.interval, unit)),
                    word(one.verdict),
                )
            )
        )
    return Table("reproduced", "Trained again", "", columns, tuple(rows))


def _shown(value: float | None, unit: str) -> str:
    from kdbench.report.formats import fixed, significant

    return fixed(value, 2) if unit == "%" else significant(value, 4)


def _range(found: Prediction | None, unit: str) -> str:
    if found is None or found.half_width is None:
        return "-"
    low, high = found.mean - found.half_width, found.mean + found.half_width
    if unit == "%":  # no further than it can be
        low, high = max(0.0, low), min(100.0, high)
    return f"{_shown(low, unit)} to {_shown(high, unit)}"


def _details(outcome: Outcome) -> list[str]:
    """What is not the same, cell by cell; then what the intervals are."""
    lines = []
    for one in outcome.judged:
        said = [
            one.reason,
            one.difference,
            f"changed since: {', '.join(one.changes)}" if one.changes else "",
        ]
        if one.elsewhere and one.verdict != "identical":
            said.append(f"other machine: {', '.join(one.elsewhere)}")
        if one.unknown:
            said.append(f"not compared, no such measure here: {', '.join(one.unknown)}")
        if one.verdict == "no interval":
            said.append(f"no interval: {_why_no_interval(one.interval)}")
        said = [text for text in said if text]
        if said:
            lines.append(f"{one.cell.title}: {'; '.join(said)}")
    if any(one.verdict in ("within", "outside") for one in outcome.judged):
        lines.append(
            "Interval: where one further seed of the same teacher lies, mean ± t sd "
            f"sqrt(1 + 1/n) of the committed seeds, at {100 * outcome.level:.6g}% (for "
            "all cells together 99%). It judges cells whose code or machine is another "
            "one: what lies within is not contradicted, which is less than repeated. "
            "Here the teacher is another one, too, and its own variation is not in it."
        )
    return lines


def _why_no_interval(found: Prediction | None) -> str:
    if found is not None and found.sd == 0:
        return f"the {found.n} committed seeds are all equal"
    n = 0 if found is None else found.n
    return f"{n} committed seeds, and it takes 3"


def _last_line(outcome: Outcome, found: Found) -> str:
    from kdbench.report.formats import plural
    from kdbench.reproducing.judging import REPRODUCED

    counts = Counter(one.verdict for one in outcome.judged)
    words: dict[Verdict, str] = {
        "identical": "bit for bit",
        "within": "not contradicted (within the interval)",
        "outside": "outside the interval",
        "differs": "not the same",
        "failed": "failed",
        "no interval": "without an interval to judge it by",
    }
    parts = [f"{counts[key]} {text}" for key, text in words.items() if counts[key]]
    good = sum(counts[key] for key in REPRODUCED)
    many = len(outcome.judged)
    line = f"{good} of {plural(many, 'cell')} {'holds' if many == 1 else 'hold'}"
    line += f": {', '.join(parts)}" if parts else ""
    if found.problems:
        line += f"; {plural(len(found.problems), 'record')} not whole"
    return line


def _print_json(outcome: Outcome, found: Found, drawn: Drawn, number: int) -> None:
    import json

    whole = {
        "draw": number,
        "seconds_on_record": drawn.seconds,
        "level": outcome.level,
        "reproduced": _is_whole(outcome, found) and not outcome.interrupted,
        "cells": [_data(one) for one in outcome.judged],
        "not_whole": found.problems,
        "left_out": found.left_out,
        "too_long": drawn.too_long,
        "notes": found.notes,
    }
    typer.echo(json.dumps(whole, indent=1))


def _data(one: Judged) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "folder": str(one.cell.folder),
        "id": one.cell.record.id,
        "new_id": None if one.new is None else one.new.id,
        "cell": one.cell.title,
        "measure": one.cell.record.headline.name,
        "committed": one.cell.value,
        "new": one.value,
        "interval": None if one.interval is None else asdict(one.interval),
        "verdict": one.verdict,
        "difference": one.difference,
        "changes": one.changes,
        "elsewhere": one.elsewhere,
        "reason": one.reason,
    }
