"""One CSV file for each table, with unrounded values."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from kdbench.report.document import build
from kdbench.report.provenance import facts_table
from kdbench.report.quality import per_class_table
from kdbench.report.tables import Table
from kdbench.store import Results


def render(results: Results, folder: Path) -> Sequence[Path]:
    """Write `folder`/csv/<setting>-<table>.csv; an empty field is a missing value."""
    document = build(results)
    target = folder / "csv"
    target.mkdir(parents=True, exist_ok=True)
    written = [
        _write(target / f"{part.section.slug}-{table.key}.csv", table)
        for part in document.parts
        for table in (*part.tables, per_class_table(part.section))
        if table is not None
    ]
    if document.overview:
        written.append(_write(target / "systems.csv", document.overview))
    overall = (facts_table(document.facts), *document.provenance)
    written += [_write(target / f"provenance-{t.key}.csv", t) for t in overall]
    return written


def _write(path: Path, table: Table) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(column.key for column in table.columns)
        for row in table.rows:
            writer.writerow("" if c.value is None else c.value for c in row.cells)
    return path
