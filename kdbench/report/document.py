"""The whole report as data, the same for every renderer."""

from __future__ import annotations

from dataclasses import dataclass

from kdbench.report import provenance
from kdbench.report.accuracy import accuracy_table, further_table, unfinished_table
from kdbench.report.against import Against, elsewhere_table, outcome, published_table
from kdbench.report.compression import compression_table
from kdbench.report.cost import size_table
from kdbench.report.overview import overview_table
from kdbench.report.quality import quality_table
from kdbench.report.sections import Section, sections
from kdbench.report.speed import models_table, speed_table
from kdbench.report.tables import Table
from kdbench.report.training_cost import cost_table, split_table
from kdbench.report.words import summary
from kdbench.store import Results

TITLE = "Knowledge distillation benchmark"


@dataclass(frozen=True)
class Part:
    """One setting: its sentences and its tables."""

    section: Section
    sentences: tuple[str, ...]
    tables: tuple[Table, ...]

    def table(self, key: str) -> Table | None:
        """The table with this key, if the part has one."""
        return next((table for table in self.tables if table.key == key), None)


@dataclass(frozen=True)
class Document:
    """All parts, of several systems in one table too, and the provenance.

    `comparison` is what comparing with published numbers came to, "" if nobody asked.
    """

    title: str
    overview: Table | None
    parts: tuple[Part, ...]
    facts: provenance.Facts
    provenance: tuple[Table, ...]
    comparison: str = ""


def build(results: Results) -> Document:
    """Raises UserError where the records obey different protocol versions."""
    found = sections(results)
    compare = isinstance(results, Against)
    comparison = outcome(found) if compare else ""
    facts = provenance.facts(results, found)
    if comparison:
        facts += (("Against published numbers", comparison),)
    return Document(
        title=TITLE,
        overview=overview_table(found),
        parts=tuple(_part(section, compare) for section in found),
        facts=facts,
        provenance=tuple(provenance.tables(results)),
        comparison=comparison,
    )


def _part(section: Section, compare: bool) -> Part:
    tables = (
        accuracy_table(section),
        *((published_table(section), elsewhere_table(section)) if compare else ()),
        compression_table(section),
        unfinished_table(section),
        quality_table(section),
        cost_table(section),
        split_table(section),
        size_table(section),
        speed_table(section),
        models_table(section),
        further_table(section),
    )
    return Part(
        section=section,
        sentences=tuple(summary(section)),
        tables=tuple(table for table in tables if table is not None),
    )
