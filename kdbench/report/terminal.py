"""The report's tables in a terminal."""

from __future__ import annotations

from dataclasses import replace

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from kdbench.report import formats
from kdbench.report.document import build
from kdbench.report.tables import CSV_ONLY, Row, Table
from kdbench.store import Results

SHOWN = (
    "accuracy",
    "quality",
    "compression",
    "published",
    "unfinished",
    "cost",
    "size",
    "speed",
)
NEAR = "†"
"""Behind a number that a test does not tell from the best of its column."""
LEGEND = f"{NEAR} not significantly worse than the best of its column."
PLAIN = {"±": "+/-", NEAR: "+"}
"""What a terminal without them shows instead."""
STYLES = {"plain": "", "reference": "italic", "missing": "dim"}


def wide_console() -> Console:
    """The terminal, or 110 columns where the output goes to a file or a pipe."""
    console = Console(emoji=False)  # a name such as a:two:b is no picture
    return console if console.is_terminal else Console(width=110, emoji=False)


def print_tables(results: Results, console: Console) -> None:
    """Accuracy and quality, failures, cost, and size and speed of every setting.

    Columns that do not fit the console's width are left out, the least important ones
    first; 'kdbench report' shows all of them.
    """
    document = build(results)
    if document.overview:
        print_table(document.overview, console)
    for part in document.parts:
        console.rule(escape(_plain(part.section.title, console)))
        for sentence in (
            part.sentences[1:] if len(document.parts) > 9 else part.sentences
        ):
            console.print(_plain(sentence, console), markup=False, highlight=False)
        for key in SHOWN:
            table = part.table(key)
            if table is not None and table.rows:
                print_table(table, console)
    if not document.parts:
        console.print("No student run yet.")
    if document.comparison:
        console.print(document.comparison, markup=False, highlight=False)
    if results.damaged:
        many = formats.plural(len(results.damaged), "damaged file")
        console.print(f"{many} left out:")
        for path, reason in results.damaged:
            console.print(f"  {path}: {reason}", markup=False, highlight=False)


def fit(table: Table, width: int) -> Table:
    """The table without the columns that `width` characters have no room for."""
    for level in range(CSV_ONLY - 1, -1, -1):
        shown = table.shown(level)
        if _width(shown) <= width:
            return shown
    return shown


def _width(table: Table) -> int:
    return sum(_widest(table, i) + 2 for i in range(len(table.columns))) - 1


def _widest(table: Table, column: int) -> int:
    """Of the cells' texts and the heading's words."""
    words = table.columns[column].heading.split()
    texts = (row.cells[column].text for row in table.rows)
    return max(map(len, (*words, *texts)))


def _printable(table: Table, console: Console) -> Table:
    """The table in the terminal's encoding, with the sign of what is near the best.

    Where a column has that sign its texts are padded, so that numbers stay in line.
    """
    columns = tuple(
        replace(c, title=_plain(c.title, console), unit=_plain(c.unit, console))
        for c in table.columns
    )
    rows = [list(row.cells) for row in table.rows]
    for place, column in enumerate(columns):
        own = [cells[place] for cells in rows]
        signed = any(cell.near for cell in own)
        signs = [(NEAR if cell.near else " ") if signed else "" for cell in own]
        texts = [
            _plain(cell.text + sign, console)
            for cell, sign in zip(own, signs, strict=True)
        ]
        width = max(map(len, (*column.heading.split(), *texts))) if signed else 0
        for cells, text in zip(rows, texts, strict=True):
            cells[place] = replace(cells[place], text=text.rjust(width))
    return replace(
        table,
        columns=columns,
        rows=tuple(
            replace(row, cells=tuple(cells))
            for row, cells in zip(table.rows, rows, strict=True)
        ),
    )


def print_table(table: Table, console: Console) -> None:
    """One table, and its notes below it."""
    shown = fit(_printable(table, console), console.width)
    view = RichTable(
        title=escape(_plain(table.title, console)),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    fits = _width(shown) <= console.width
    for i, column in enumerate(shown.columns):
        widest = _widest(shown, i)
        view.add_column(
            Text(column.heading),
            justify="right" if column.numeric else "left",
            vertical="bottom",
            overflow="fold",
            width=widest if fits else None,
            min_width=widest if column.numeric else None,
        )
    for row in shown.rows:
        view.add_row(*_cells(row), style=STYLES[row.kind])
    console.print()
    console.print(view)
    near = any(cell.near for row in shown.rows for cell in row.cells)
    for note in ((LEGEND,) if near else ()) + table.notes:
        console.print(_plain(note, console), style="dim", markup=False, highlight=False)


def _cells(row: Row) -> list[Text]:
    """A text that ends in a space is padded: aligned to the right it would lose it."""
    return [
        Text(
            cell.text,
            style="bold" if cell.best else "",
            justify="left" if cell.text.endswith(" ") else None,
        )
        for cell in row.cells
    ]


def _plain(text: str, console: Console) -> str:
    """The text in what the terminal's encoding can show."""
    if console.encoding.lower().startswith("utf"):
        return text
    for sign, plain in PLAIN.items():
        text = text.replace(sign, plain)
    return text.encode(console.encoding, "replace").decode(console.encoding)
