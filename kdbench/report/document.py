"""The whole report as data, the same for every renderer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from kdbench.cards import Card
from kdbench.records import Record
from kdbench.report import provenance
from kdbench.report.accuracy import accuracy_table, further_table, unfinished_table
from kdbench.report.across import across_tables
from kdbench.report.against import Against, elsewhere_table, outcome, published_table
from kdbench.report.compression import compression_table
from kdbench.report.cost import size_table
from kdbench.report.evidence import detectable_table, evidence_table
from kdbench.report.findings import findings
from kdbench.report.overview import overview_table
from kdbench.report.quality import quality_table
from kdbench.report.sections import Section, sections
from kdbench.report.speed import models_table, speed_table
from kdbench.report.tables import Table
from kdbench.report.training_cost import cost_table, split_table
from kdbench.report.words import summary
from kdbench.store import Results

if TYPE_CHECKING:
    from kdbench.report.plots.style import Plot

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


@dataclass(frozen=True, eq=False)
class Document:
    """All parts, of several systems in one table too, and the provenance.

    `findings` are the sentences that a reader should see first, `across` the tables
    over several settings, `cards` the strategies by family and name. `comparison` is
    what comparing with published numbers came to, "" if nobody asked.
    """

    title: str
    overview: Table | None
    parts: tuple[Part, ...]
    facts: provenance.Facts
    provenance: tuple[Table, ...]
    comparison: str = ""
    findings: tuple[str, ...] = ()
    across: tuple[Table, ...] = ()
    cards: tuple[Card, ...] = ()

    @property
    def sections(self) -> list[Section]:
        """The settings, without their tables."""
        return [part.section for part in self.parts]

    @cached_property
    def plots(self) -> dict[str, list[Plot]]:
        """Slug of a setting -> its plots; "" -> those over several settings."""
        from kdbench.report.plots import overall_plots, section_plots

        found = {s.slug: section_plots(s) for s in self.sections}
        return {**found, "": overall_plots(self.sections)}

    def draw(self) -> None:
        """Draw all plots, before they are asked for one by one."""
        from kdbench.report.plots.ahead import draw_ahead

        draw_ahead([plot for group in self.plots.values() for plot in group])


@lru_cache(maxsize=2)
def build(results: Results) -> Document:
    """The document of these results, built once for all renderers.

    Raises UserError where the records obey different protocol versions.
    """
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
        findings=tuple(findings(found)),
        across=tuple(across_tables(found)),
        cards=tuple(cards(results)),
    )


def cards(results: Results) -> list[Card]:
    """A card for each strategy of the runs: its own, another version's, or a bare one.

    Several versions of one strategy's code are several cards.
    """
    used: dict[tuple[str, str], Record] = {}
    for record in results.records:
        if not record.run.is_teacher:
            code = record.run.code.get("strategy", "")
            used.setdefault((record.run.strategy, code), record)
    found: dict[tuple[str, str], Card] = {}
    for (name, code), record in used.items():
        known = [card for card in results.cards if card.strategy == name]
        exact = [card for card in known if card.code == code]
        bare = Card(
            strategy=name,
            code=code,
            family=record.family,
            summary="Not described in these results.",
            plugin=record.plugin,
        )
        card = (exact or known or [bare])[0]
        found[name, card.code] = card
    return sorted(found.values(), key=lambda card: (card.family, card.strategy))


def _part(section: Section, compare: bool) -> Part:
    tables = (
        accuracy_table(section),
        *((published_table(section), elsewhere_table(section)) if compare else ()),
        evidence_table(section),
        detectable_table(section),
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
