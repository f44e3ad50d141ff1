"""One CSV file for each table, with unrounded values."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from kdbench.cards import Card
from kdbench.report.across import data_tables
from kdbench.report.document import build
from kdbench.report.provenance import facts_table, plugin_name
from kdbench.report.quality import PER_CLASS, per_class_rows
from kdbench.report.tables import CSV_ONLY, Column, Row, Table, Value, word
from kdbench.store import Results


def render(results: Results, folder: Path) -> Sequence[Path]:
    """Write `folder`/csv/<setting>-<table>.csv; an empty field is a missing value.

    Tables over settings are overall-<table>.csv, the strategies strategies.csv.
    """
    document = build(results)
    target = folder / "csv"
    target.mkdir(parents=True, exist_ok=True)
    written = [
        _write(target / f"{part.section.slug}-{table.key}.csv", table)
        for part in document.parts
        for table in part.tables
    ]
    for section in document.sections:
        path = target / f"{section.slug}-classes.csv"
        written += _write_rows(path, PER_CLASS, per_class_rows(section))
    across = (*document.across, *data_tables(document.sections))
    written += [_write(target / f"overall-{t.key}.csv", t) for t in across]
    if document.overview:
        written.append(_write(target / "systems.csv", document.overview))
    if document.cards:
        written.append(_write(target / "strategies.csv", cards_table(document.cards)))
    overall = (facts_table(document.facts), *document.provenance)
    written += [_write(target / f"provenance-{t.key}.csv", t) for t in overall]
    return written


def cards_table(cards: Sequence[Card]) -> Table:
    """What each strategy is: in short, and for data files in full."""
    return Table(
        key="cards",
        title="What the strategies are",
        caption="In their authors' words or those of their plugins.",
        columns=(
            Column("strategy", "Strategy", numeric=False),
            Column("family", "Family", numeric=False),
            Column("summary", "Summary", numeric=False),
            Column("paper", "Paper", numeric=False),
            *(
                Column(name, name, numeric=False, level=CSV_ONLY)
                for name in ("formula", "tasks", "reads", "costs", "parameters")
            ),
            Column("plugin", "Plugin", numeric=False, level=CSV_ONLY),
            Column("code", "Code", numeric=False, level=CSV_ONLY),
            Column("references", "References", numeric=False, level=CSV_ONLY),
        ),
        rows=tuple(Row(tuple(map(word, _card(card)))) for card in cards),
    )


def _card(card: Card) -> tuple[str, ...]:
    return (
        card.strategy,
        card.family,
        card.summary,
        card.paper,
        card.formula,
        " ".join(card.tasks),
        card.reads,
        card.costs,
        "; ".join(f"{p.name} = {p.default} ({p.note})" for p in card.parameters),
        plugin_name(card.plugin),
        card.code,
        "\n".join(card.references),
    )


def _write(path: Path, table: Table) -> Path:
    rows = ([cell.value for cell in row.cells] for row in table.rows)
    _write_rows(path, [column.key for column in table.columns], rows, empty=True)
    return path


def _write_rows(
    path: Path,
    head: Sequence[str],
    rows: Iterable[Sequence[Value]],
    *,
    empty: bool = False,
) -> list[Path]:
    """None is an empty field. Without any row no file, unless it may be `empty`."""
    found = iter(rows)
    first = next(found, None)
    if first is None and not empty:
        return []
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows([] if first is None else chain([first], found))
    return [path]
