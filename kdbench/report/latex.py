"""report.tex and report.bib: the paper-style report, for those who edit it.

With them go the figures it includes and every table as a file of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from kdbench import __version__
from kdbench.report.typesetting import tex
from kdbench.report.typesetting.blocks import Grid, Span
from kdbench.report.typesetting.manuscript import day, manuscript
from kdbench.report.typesetting.references import bibtex
from kdbench.store import Results


def render(results: Results, folder: Path) -> Sequence[Path]:
    """Write `folder`/report.tex and report.bib, plots/*.pdf and tables/*.tex.

    A table's file is a tabular, for the author's own table environment; it needs
    booktabs, and natbib and report.bib where it cites.
    """
    text = manuscript(results)
    template = _environment().get_template("report.tex.j2")
    page = template.render(text=text, date=day(text.date), version=__version__)
    written = [
        _write(folder / "report.tex", page),
        _write(folder / "report.bib", bibtex(text.entries, _in_braces)),
    ]
    for picture in text.pictures:
        path = folder / "plots" / f"{picture.stem}.pdf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture.pdf)
        written.append(path)
    for grid in text.taken:
        path = folder / "tables" / f"{grid.slug}.tex"
        written.append(_write(path, "\n".join(_tabular(grid)) + "\n"))
    return written


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - it would escape for HTML; the filters do for TeX
        block_start_string="((*",
        block_end_string="*))",
        variable_start_string="(((",
        variable_end_string=")))",
        comment_start_string="((=",
        comment_end_string="=))",
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "tex": tex.escape,
        "plain": tex.plain,
        "spans": tex.spans,
        "rows": tex.rows,
        "head": tex.head,
        "columns": tex.columns,
    }
    return environment


def _tabular(grid: Grid) -> Iterator[str]:
    """One table for the author's own file, caption and notes in comments."""
    words = [(Span("text", f"{grid.title}."),), grid.caption, *grid.notes]
    yield from (f"% {tex.spans(found)}" for found in words if found)
    yield rf"\begin{{tabular}}{{{tex.columns(grid)}}}"
    yield r"\toprule"
    yield from (rf"{line} \tabularnewline" for line in tex.head(grid))
    yield r"\midrule"
    for number, line in enumerate(tex.rows(grid), 1):
        yield rf"{line} \tabularnewline"
        if number == grid.opening:
            yield r"\addlinespace[3pt]"
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _in_braces(text: str) -> str:
    """Text of an entry: braces are its own, accents are for BibTeX to sort by."""
    return "".join(map(_in_entry, text))


def _in_entry(character: str) -> str:
    escaped = character if character in "{}" else tex.escape(character)
    return escaped if escaped == character else f"{{{escaped}}}"


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
