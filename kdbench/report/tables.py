"""Tables as data: typed columns, cells with a value and its text.

Every number is formatted here, once; renderers only lay the texts out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["plain", "reference", "missing"]
Value = str | float | int | None

CSV_ONLY = 9
"""The level of a column that only data files show."""


@dataclass(frozen=True)
class Column:
    """`level` says how soon it goes where space is short: 0 never, 8 first."""

    key: str
    title: str
    unit: str = ""
    numeric: bool = True
    level: int = 0
    better: Literal["higher", "lower"] | None = None

    @property
    def heading(self) -> str:
        return f"{self.title} ({self.unit})" if self.unit else self.title


@dataclass(frozen=True)
class Cell:
    """A value and how it is written; `best` marks the best of its column.

    `near` marks one that a test does not tell from the best.
    """

    value: Value
    text: str
    best: bool = False
    near: bool = False


@dataclass(frozen=True)
class Row:
    """`kind` is "reference" for teacher, scratch and kd, "missing" without a result."""

    cells: tuple[Cell, ...]
    kind: Kind = "plain"


@dataclass(frozen=True)
class Table:
    """`key` names it in file names; `notes` are sentences that belong under it."""

    key: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())

    def shown(self, level: int = CSV_ONLY - 1) -> Table:
        """The table without the columns above `level`."""
        keep = [i for i, column in enumerate(self.columns) if column.level <= level]
        return replace(
            self,
            columns=tuple(self.columns[i] for i in keep),
            rows=tuple(
                replace(row, cells=tuple(row.cells[i] for i in keep))
                for row in self.rows
            ),
        )

    def cell(self, row: int, key: str) -> Cell:
        """One cell by row number and column key."""
        keys = [column.key for column in self.columns]
        return self.rows[row].cells[keys.index(key)]


def word(text: str) -> Cell:
    """A cell of text."""
    return Cell(text or None, text or "-")


def mark_best(
    columns: Sequence[Column], rows: Sequence[Row], apart: Collection[str] = ()
) -> tuple[Row, ...]:
    """Mark the best value of each column that has a direction.

    Rows whose first cell is "teacher" or stands in `apart` are no candidates.
    Ties are all marked, as far as their texts agree; a single candidate is not marked.
    """
    marked = [list(row.cells) for row in rows]
    apart = {"teacher", *apart}
    candidates = [
        i for i, row in enumerate(rows) if row.cells and row.cells[0].value not in apart
    ]
    for j, column in enumerate(columns):
        if column.better is None:
            continue
        values = {
            i: value
            for i in candidates
            if isinstance(value := rows[i].cells[j].value, int | float)
        }
        if len(values) < 2:
            continue
        best = (max if column.better == "higher" else min)(values.values())
        text = next(rows[i].cells[j].text for i, v in values.items() if v == best)
        for i in values:
            cell = rows[i].cells[j]
            own = cell.text == text
            marked[i][j] = replace(cell, best=own, near=cell.near and not own)
    return tuple(
        replace(row, cells=tuple(cells))
        for row, cells in zip(rows, marked, strict=True)
    )
