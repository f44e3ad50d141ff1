"""The accuracy table's column of published numbers, with a list of sources below it."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

from kdbench.report import formats
from kdbench.report.against import Comparison, comparisons, number, recipe_notes
from kdbench.report.sections import Section
from kdbench.report.tables import CSV_ONLY, Cell, Column, word


def columns(section: Section) -> tuple[Column, ...]:
    """Published number, source and epoch rule; none where the pair has no numbers."""
    if not comparisons(section, ()):
        return ()
    return (
        Column("published", "Published", section.headline.unit, level=2),
        Column("published_source", "Source", numeric=False, level=CSV_ONLY),
        Column("published_epoch", "Its epoch", numeric=False, level=CSV_ONLY),
    )


def cells(label: str, compared: Sequence[Comparison]) -> tuple[Cell, Cell, Cell]:
    """One row's cells: the number with the letter of its source."""
    shown = next((c.shown for c in compared if c.label == label), None)
    if shown is None:
        return (Cell(None, formats.MISSING), word(""), word(""))
    text = f"{number(shown)} {_marks(compared)[shown.cited]}"
    return (Cell(shown.top1, text), word(shown.source), word(shown.epoch))


def notes(compared: Sequence[Comparison]) -> list[str]:
    """What each letter stands for, and whether the numbers are comparable."""
    if not compared:
        return []
    cited = [f"{mark} {cite}" for cite, mark in _marks(compared).items()]
    return [
        f"Published: {'; '.join(cited)}. 'kdbench report --against published' compares "
        "them with ours and lists every source.",
        *recipe_notes(compared),
    ]


def _marks(compared: Sequence[Comparison]) -> dict[str, str]:
    """Source and epoch rule -> the letter that stands for them."""
    cited = dict.fromkeys(c.shown.cited for c in compared)
    return dict(zip(cited, ascii_lowercase, strict=False))
