"""report.md: summary, tables and provenance as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from kdbench.report.document import Part, build
from kdbench.report.tables import Cell, Table
from kdbench.store import Results


def render(results: Results, folder: Path) -> Sequence[Path]:
    """Write `folder`/report.md; it shows the plots that lie in `folder`/plots."""
    document = build(results)
    lines = [f"# {escape(document.title)}", ""]
    if not document.parts:
        lines += ["No student run yet.", ""]
    if document.overview:
        lines += _table(document.overview)
    for part in document.parts:
        lines += _part(part, folder)
    lines += ["## Provenance", ""]
    lines += [f"- {escape(name)}: {escape(value)}" for name, value in document.facts]
    lines.append("")
    for table in document.provenance:
        lines += _table(table)
    path = folder / "report.md"
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    return [path]


def escape(text: str) -> str:
    """Text that Markdown and HTML leave as it is, also inside a table cell."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]|~])", r"\\\1", text)
    return " ".join(text.split())


def _part(part: Part, folder: Path) -> Iterator[str]:
    yield f"## {escape(part.section.title)}"
    yield ""
    for sentence in part.sentences:
        yield escape(sentence)
    yield ""
    for table in part.tables:
        yield from _table(table)
    for kind in ("accuracy", "curves"):
        name = f"plots/{part.section.slug}-{kind}.png"
        if (folder / name).exists():
            yield f"![{kind} of {escape(part.section.title)}]({name})"
            yield ""


def _table(table: Table) -> Iterator[str]:
    shown = table.shown()
    yield f"### {escape(table.title)}"
    yield ""
    yield escape(table.caption)
    yield ""
    yield _line(escape(column.heading) for column in shown.columns)
    yield _line("--:" if column.numeric else ":--" for column in shown.columns)
    for row in shown.rows:
        yield _line(_cell(cell) for cell in row.cells)
    yield ""
    for note in table.notes:
        yield f"- {escape(note)}"
    if table.notes:
        yield ""


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    return f"**{text}**" if cell.best else text


def _line(cells: Iterator[str]) -> str:
    return f"| {' | '.join(cells)} |"
