"""Text for LaTeX: every character typeset by any pdfTeX, or its number."""

# ruff: noqa: RUF001 - that characters look alike is the point of this file

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from kdbench.report.typesetting.blocks import Grid, GridColumn, Slot, Span
from kdbench.report.typesetting.prose import BREAK, MINUS, SPACE

EM = {8: 8.5, 7: 7.97}
"""Size in points -> what an em of Computer Modern is at that size."""

SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # behind the end of a row it would open an option
    "]": "{]}",
    "*": "{*}",  # likewise
    '"': r"{\ttfamily\char34}",
    "`": r"{\ttfamily\char96}",
    "'": "'{}",
    BREAK: r"\allowbreak{}",
    SPACE: "~",
    MINUS: "$-$",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "⁄": "/",
    "‘": "`{}",
    "’": "'{}",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "…": r"\ldots{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "·": r"$\cdot$",
    "°": r"$^\circ$",
    "µ": r"$\mu$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "§": r"\S{}",
    "¶": r"\P{}",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "≠": r"$\ne$",
    "≈": r"$\approx$",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "↔": r"$\leftrightarrow$",
    "∞": r"$\infty$",
    "∈": r"$\in$",
    "√": r"$\surd$",
    "∑": r"$\sum$",
    "∇": r"$\nabla$",
    "∂": r"$\partial$",
    "‖": r"$\Vert$",
    "ß": r"\ss{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ı": r"\i{}",
}
ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}
LIKE_LATIN = dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧο", "ABEZHIKMNOPTXo", strict=True))
LETTERS = "αβγδεζηθικλμνξπρςστυφχψωΓΔΘΛΞΠΣΥΦΨΩ"


def _command(letter: str) -> str:
    """The command of a Greek letter, by its name in Unicode."""
    words = unicodedata.name(letter).split()
    name = words[-1].lower().replace("lamda", "lambda")
    name = name.capitalize() if "CAPITAL" in words else name
    return f"$\\{'var' if 'FINAL' in words else ''}{name}$"


GREEK = {letter: _command(letter) for letter in LETTERS}


def escape(text: str) -> str:
    """The text as LaTeX prints it, in either font encoding, without other packages."""
    return re.sub("-(?=-)", "-{}", "".join(map(_character, text)))


def _character(character: str) -> str:
    for table in (SPECIAL, GREEK, LIKE_LATIN):
        if character in table:
            return table[character]
    if " " <= character <= "~":
        return character
    parts = unicodedata.normalize("NFKD", character)
    base, marks = parts[0], parts[1:]
    if not marks and base != character:
        return _character(base)
    if marks and unicodedata.combining(marks[0]):
        accent = ACCENTS.get(marks[0])
        if accent and base.isascii():
            base = {"i": r"\i", "j": r"\j"}.get(base, base)
            return f"\\{accent}{{{base}}}"
        return _character(base)
    if marks:
        return "".join(_character(part) for part in parts)
    if unicodedata.combining(character):
        return ""
    return rf"U+{ord(character):04X}\allowbreak{{}}"


def spans(found: Iterable[Span]) -> str:
    """Pieces of text with their citations, references and hidden parts."""
    return "".join(_span(span) for span in found)


def _span(span: Span) -> str:
    if span.kind in ("cite", "citet"):
        return f"\\{'citep' if span.kind == 'cite' else 'citet'}{{{span.text}}}"
    if span.kind == "table":
        return f"Table~\\ref{{tab:{span.text}}}"
    if span.kind == "hidden":
        return f"\\phantom{{{escape(span.text)}}}"
    return escape(span.text)


def rows(grid: Grid) -> list[str]:
    """The body of a table, a line for each row, without what ends it."""
    return [
        " & ".join(
            _slot(slot, column.width is not None)
            for slot, column in zip(row, grid.columns, strict=True)
        )
        for row in grid.rows
    ]


def _slot(slot: Slot, wraps: bool) -> str:
    words = spans(slot.spans)
    if slot.best:
        words = rf"\textbf{{{words}}}"
    if slot.near:
        words += r"$^\dagger$"
    return rf"\raggedright\hspace{{0pt}}{words}" if wraps else words


def head(grid: Grid) -> list[str]:
    """The lines of the heading, without what ends them."""
    return [
        " & ".join(
            rf"\multicolumn{{1}}{{{_place(grid, i)}}}{{{escape(words)}}}"
            for i, words in enumerate(line)
        )
        for line in grid.head
    ]


def _place(grid: Grid, i: int) -> str:
    """How a heading stands over its column, no room outside of the table's edges."""
    before = "@{}" if i == 0 else ""
    after = "@{}" if i == len(grid.columns) - 1 else ""
    return f"{before}{'r' if grid.columns[i].right else 'l'}{after}"


def columns(grid: Grid) -> str:
    """The argument of tabular: what kinds of columns there are."""
    kinds = "".join(_kind(column, grid.size) for column in grid.columns)
    return f"@{{}}{kinds}@{{}}"


def _kind(column: GridColumn, size: int) -> str:
    if column.width is not None:
        return f"p{{{column.width * size / EM[size]:.2f}em}}"
    return "r" if column.right else "l"


def plain(text: str) -> str:
    """What of a heading a PDF's outline can show."""
    return re.sub(r"[^A-Za-z0-9 .,:/=+-]", "", text)
