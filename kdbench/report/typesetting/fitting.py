"""Tables that fit the page: which columns, how wide, where numbers are padded.

Widths are in em and rough: those of Computer Modern at 8 points. Another typeface is
told by how much narrower its letters are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from kdbench.report.formats import MISSING
from kdbench.report.tables import CSV_ONLY, Cell, Column, Table
from kdbench.report.typesetting.blocks import Grid, GridColumn, Slot, Span, Spans, text
from kdbench.report.typesetting.numbers import aligned
from kdbench.report.typesetting.prose import (
    BREAK,
    DASH,
    MINUS,
    SPACE,
    TIMES,
    name,
    sentence,
)

PORTRAIT = {8: 57.0, 7: 61.0}
"""Size in points -> width of the text in em."""
LANDSCAPE = {7: 93.0}
SHORT = 32
"""Lines of a table that is kept on one page."""
GAP = 0.95
"""Between two columns, in em."""

WIDTHS = {
    character: wide
    for wide, characters in {
        0.0: BREAK,
        0.31: "!',.:;[]`il|",
        0.36: f"fj- {SPACE}",
        0.43: "Icrst()_",
        0.48: "ez?",
        0.59: "bdhknpqSuvxy",
        0.75: "BCEFLPRTZw",
        0.84: f"&=+<>±{TIMES}{MINUS}@",
        0.9: "m%#",
        1.07: "MW",
    }.items()
    for character in characters
}
"""Of Computer Modern; digits are 0.54, other capitals 0.82."""
BOLD = 1.13
"""How much wider it is."""

DAGGER = "†"
BEST = "Bold: the best of its column; that is no test."
NEAR = f"{DAGGER}: not significantly worse than the best of its column."


def grids(table: Table, slug: str, *, narrow: float = 1.0) -> list[Grid]:
    """The table as it is printed: several where its columns do not fit one page.

    Columns go by their level, the highest first, until the rest fits the page upright;
    where even the last ones do not, the type gets smaller, then the page is turned.
    `narrow` is how wide letters are beside those of Computer Modern.
    """
    shown, size, landscape = _fit(table, narrow)
    room = _room(size, landscape, narrow)
    own = sentence(table.title)
    words = text(sentence(table.caption))
    found = []
    for number, part in enumerate(_split(shown, room)):
        more = number > 0
        columns = _columns(part, room)
        found.append(
            Grid(
                slug=f"{slug}-{number + 1}" if more else slug,
                title=f"{own}, further columns" if more else own,
                caption=() if more else words,
                columns=tuple(_narrowed(column, narrow) for column in columns),
                rows=_slots(part),
                notes=_notes(table, part, shown),
                size=size,
                landscape=landscape,
                opening=_opening(part),
                short=_lines(part, columns) <= SHORT,
            )
        )
    return found


def _room(size: int, landscape: bool, narrow: float) -> float:
    return (LANDSCAPE if landscape else PORTRAIT)[size] / narrow


def _narrowed(column: GridColumn, narrow: float) -> GridColumn:
    if column.width is None:
        return column
    return replace(column, width=round(column.width * narrow, 2))


def _fit(table: Table, narrow: float) -> tuple[Table, int, bool]:
    """The columns that are kept, the size in points and whether the page is turned."""
    levels = sorted({0, *(c.level for c in table.columns if c.level < CSV_ONLY)})
    tried = [(level, 8, False) for level in reversed(levels)]
    tried.append((0, 7, False))
    tried += [(level, 7, True) for level in reversed(levels)]
    for level, size, landscape in tried:
        shown = table.shown(level)
        if _least(shown) <= _room(size, landscape, narrow):
            return shown, size, landscape
    return table.shown(0), 7, True


def _split(table: Table, room: float) -> Iterator[Table]:
    """The table in parts that fit, each with the first column."""
    widths = [least for least, _ in _widths(table)]
    parts: list[list[int]] = [[0]]
    for i, width in enumerate(widths[1:], 1):
        taken = sum(widths[j] + GAP for j in parts[-1])
        if len(parts[-1]) > 1 and taken + width + GAP > room:
            parts.append([0])
        parts[-1].append(i)
    for part in parts:
        yield replace(
            table,
            columns=tuple(table.columns[i] for i in part),
            rows=tuple(
                replace(row, cells=tuple(row.cells[i] for i in part))
                for row in table.rows
            ),
        )


def _notes(table: Table, part: Table, shown: Table) -> tuple[Spans, ...]:
    cells = [cell for row in part.rows for cell in row.cells]
    kept = {column.key for column in shown.columns}
    gone = [c.heading for c in table.shown().columns if c.key not in kept]
    notes = [*table.notes]
    notes += [BEST] if any(cell.best for cell in cells) else []
    notes += [NEAR] if any(cell.near and not cell.best for cell in cells) else []
    if gone:
        notes.append(
            "Left out for want of room, though the caption may speak of them: "
            f"{', '.join(gone)}."
        )
    return tuple(text(sentence(note)) for note in notes)


def _opening(table: Table) -> int:
    """How many rows for reference open the table, if others follow."""
    kinds = [row.kind == "reference" for row in table.rows]
    return kinds.index(False) if False in kinds else 0


def _lines(table: Table, columns: Sequence[GridColumn]) -> float:
    """About how many lines the rows take."""
    return sum(
        max(
            math.ceil(1.1 * width(cell.text) / column.width) if column.width else 1
            for cell, column in zip(row.cells, columns, strict=True)
        )
        for row in table.rows
    )


def _least(table: Table) -> float:
    widths = _widths(table)
    return sum(least + GAP for least, _ in widths)


def _widths(table: Table) -> list[tuple[float, float]]:
    """The least and the natural width of each column."""
    found = []
    for j, column in enumerate(table.columns):
        cells = [row.cells[j].text for row in table.rows]
        bold = BOLD if any(row.cells[j].best for row in table.rows) else 1.0
        dagger = 0.5 if any(row.cells[j].near for row in table.rows) else 0.0
        if column.numeric:
            cells = _padded(cells)
        body = bold * max(map(width, cells), default=0.0) + dagger
        head = max(width(chunk) for chunk in _chunks(column))
        natural = max(body, head)
        if column.numeric:
            least = natural
        else:
            floor = max([_floor(j, body), *map(_unbroken, cells)])
            least = max(head, min(natural, floor))
        found.append((least, natural))
    return found


def _unbroken(words: str) -> float:
    """The width of the longest piece that no line may break in."""
    pieces = name(words).replace(BREAK, " ").split(" ")
    return max(map(width, pieces))


def _floor(place: int, body: float) -> float:
    """What a column of text may shrink to."""
    if place == 0:
        return 11.0
    return 14.0 if body > 30 else 7.0


def _padded(cells: Sequence[str]) -> list[str]:
    return ["".join(span.text for span in spans) for spans in aligned(cells)]


def width(words: str) -> float:
    """About how wide a text is, in em."""
    return sum(WIDTHS.get(c, 0.82 if c.isupper() else 0.54) for c in words)


def _columns(table: Table, room: float) -> tuple[GridColumn, ...]:
    widths = _widths(table)
    least = sum(low + GAP for low, _ in widths)
    wanted = sum(natural - low for low, natural in widths)
    share = min(1.0, max(0.0, room - least) / wanted) if wanted else 1.0
    found = []
    for column, (low, natural) in zip(table.columns, widths, strict=True):
        final = low + share * (natural - low)
        wraps = not column.numeric and share < 1 and natural > low
        found.append(
            GridColumn(
                heading=_heading(column, final),
                right=column.numeric,
                width=round(final, 2) if wraps else None,
            )
        )
    return tuple(found)


def _chunks(column: Column) -> list[str]:
    """The pieces of a heading that stay together."""
    words = name(column.title).replace(BREAK, f"{BREAK} ").split(" ")
    return [*words, *([f"({column.unit})"] if column.unit else [])]


def _heading(column: Column, room: float) -> tuple[str, ...]:
    """The heading's lines, the unit on the last."""
    unit = name(f"({column.unit})") if column.unit else ""
    if column.unit and width(column.heading) <= room:
        return (f"{name(column.title)} {unit}",)
    lines: list[str] = []
    for chunk in name(column.title).replace(BREAK, f"{BREAK} ").split(" "):
        joint = "" if lines and lines[-1].endswith(BREAK) else " "
        if lines and width(lines[-1] + joint + chunk) <= room:
            lines[-1] += joint + chunk
        else:
            lines.append(chunk)
    return (*(line.rstrip(BREAK) for line in lines), *([unit] if unit else []))


def _slots(table: Table) -> tuple[tuple[Slot, ...], ...]:
    columns = []
    for j, column in enumerate(table.columns):
        cells = [row.cells[j] for row in table.rows]
        texts = [cell.text for cell in cells]
        spans = (
            aligned(texts) if column.numeric else [text(_words(cell)) for cell in cells]
        )
        columns.append(_marked(cells, spans, right=column.numeric))
    return tuple(zip(*columns, strict=True))


def _words(cell: Cell) -> str:
    return DASH if cell.text == MISSING else name(cell.text)


def _marked(cells: Sequence[Cell], spans: Sequence[Spans], right: bool) -> list[Slot]:
    """With daggers, and room for them where the others have none."""
    daggers = right and any(cell.near and not cell.best for cell in cells)
    found = []
    for cell, own in zip(cells, spans, strict=True):
        near = cell.near and not cell.best
        room = (Span("hidden", DAGGER),) if daggers and not near else ()
        found.append(Slot((*own, *room), best=cell.best, near=near))
    return found
