"""report.md: findings, tables, cards and provenance as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from kdbench.cards import Card
from kdbench.report import formats
from kdbench.report.csv_files import cards_table
from kdbench.report.document import Document, Part, build
from kdbench.report.tables import Cell, Table
from kdbench.store import Results

NEAR = "†"
"""Marks what a test does not tell from the best; captions explain it."""


def render(results: Results, folder: Path) -> Sequence[Path]:
    """Write `folder`/report.md; it shows the plots that lie in `folder`/plots."""
    document = build(results)
    lines = [f"# {escape(document.title)}", "", *_opening(document, folder)]
    for part in document.parts:
        lines += _part(document, part, folder)
    lines += [*_cards(document.cards), "## Provenance", ""]
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
    text = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", text)
    return " ".join(text.split())


def paragraph(text: str) -> str:
    """The same for a line of its own, where a first character may start a list."""
    return re.sub(r"^([#+=-]|\d+(?=[.)]))", _escape_start, escape(text))


def _escape_start(found: re.Match[str]) -> str:
    start = found[0]
    return f"{start}\\" if start.isdigit() else f"\\{start}"


def _opening(document: Document, folder: Path) -> Iterator[str]:
    """What all settings together show."""
    if not document.parts:
        yield from ("No student run yet.", "")
    if document.findings:
        yield from ("## Findings", "")
        yield from (f"- {paragraph(sentence)}" for sentence in document.findings)
        yield ""
    if document.across:
        yield from ("## Over all settings", "")
    for table in document.across:
        yield from _table(table)
    if document.overview:
        yield from _table(document.overview)
    yield from _plots(document, "", folder)


def _part(document: Document, part: Part, folder: Path) -> Iterator[str]:
    yield f"## {escape(part.section.title)}"
    yield ""
    yield from (paragraph(sentence) for sentence in part.sentences)
    yield ""
    for table in part.tables:
        yield from _table(table)
    yield from _plots(document, part.section.slug, folder)


def _plots(document: Document, slug: str, folder: Path) -> Iterator[str]:
    """The plots of a setting, as far as they were drawn."""
    if not (folder / "plots").is_dir():
        return
    for plot in document.plots[slug]:
        name = f"plots/{plot.stem}.png"
        if (folder / name).exists():
            yield from (f"![{escape(plot.alt)}]({name})", "")
            yield from (f"**{escape(plot.title)}.** {escape(plot.caption)}", "")


def _cards(cards: Sequence[Card]) -> Iterator[str]:
    """What the strategies are, and how many publications they cite."""
    if not cards:
        return
    yield "## Strategies"
    yield ""
    yield from _table(cards_table(cards))
    cited = {reference for card in cards for reference in card.references}
    if cited:
        yield (
            f"They cite {formats.plural(len(cited), 'publication')}; report.bib, "
            "written with the LaTeX report, lists them."
        )
        yield ""


def _table(table: Table) -> Iterator[str]:
    shown = table.shown()
    yield f"### {escape(table.title)}"
    yield ""
    yield paragraph(table.caption)
    yield ""
    yield _line(escape(column.heading) for column in shown.columns)
    yield _line("--:" if column.numeric else ":--" for column in shown.columns)
    for row in shown.rows:
        yield _line(_cell(cell) for cell in row.cells)
    yield ""
    yield from (f"- {paragraph(note)}" for note in table.notes)
    if table.notes:
        yield ""


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.best:
        return f"**{text}**"
    return f"{text} {NEAR}" if cell.near else text


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
