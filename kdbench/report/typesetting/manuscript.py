"""The manuscript: what the report says, in order, for LaTeX and Typst alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import lru_cache
from itertools import chain

from kdbench.report import provenance
from kdbench.report.document import Document, Part, build
from kdbench.report.formats import MISSING
from kdbench.report.plots.style import Plot, drawn
from kdbench.report.tables import Table
from kdbench.report.typesetting import wording
from kdbench.report.typesetting.blocks import (
    Block,
    Bullets,
    Grid,
    Heading,
    Paragraph,
    Picture,
    Span,
    Spans,
    text,
)
from kdbench.report.typesetting.fitting import grids
from kdbench.report.typesetting.prose import clean, name, sentence
from kdbench.report.typesetting.references import Entry, References, methods
from kdbench.report.typesetting.strategies import cards_table, with_citations
from kdbench.store import Results

FEW = 3
"""Of so many settings the details stand with their setting, of more in an appendix."""
MANY = 6
"""Of more than so many they are left to the page and the data files: a hundred pages
of tables are no paper."""

WIDTH = 440.0
HEIGHT = 560.0
"""The most room for a figure, in points."""
SCALE = 0.75
"""Of a figure, as it was drawn for a screen."""

ELSEWHERE = {"split", "models", "further"}
"""Tables that the data files and the page show, and the manuscript does not."""
MAIN = {"accuracy", "unfinished"}
"""Tables that stand with their setting in any case."""
MAIN_PLOTS = {"accuracy", "gains"}
OVER = (
    "This section holds what spans settings: strategies in all of them, and accuracy "
    "against what a student costs in use. What differs by setting follows."
)
AS_BEFORE = "What the columns hold, and what was tested: as in "


@dataclass(frozen=True)
class Manuscript:
    """`body` ends with the limits; the references follow, then `appendix`.

    `entries` are the works cited; `taken` are the tables to take one by one.
    """

    title: str
    date: date | None
    abstract: Spans
    body: tuple[Block, ...]
    appendix: tuple[Block, ...]
    entries: tuple[Entry, ...]
    taken: tuple[Grid, ...]

    @property
    def pictures(self) -> list[Picture]:
        """All figures, in order."""
        return [b for b in (*self.body, *self.appendix) if isinstance(b, Picture)]


@lru_cache(maxsize=2)
def manuscript(results: Results, narrow: float = 1.0) -> Manuscript:
    """The manuscript of these results.

    `narrow` is how wide the letters of tables are beside those of Computer Modern.
    Raises UserError where the records obey different protocol versions.
    """
    return _Writer(build(results), results, narrow).manuscript()


@dataclass
class _Writer:
    """Puts the blocks in order and keeps what was cited and explained before."""

    document: Document
    results: Results
    narrow: float
    references: References = field(default_factory=References)
    explained: dict[tuple[str, str], str] = field(default_factory=dict)
    taken: list[Grid] = field(default_factory=list)

    def manuscript(self) -> Manuscript:
        document = self.document
        for entry in methods().values():
            self.references.entries[entry.key] = entry
        few = len(document.parts) <= FEW
        body = [
            *self._protocol(),
            *self._environment(),
            *self._strategies(),
            *self._results(few),
            *self._findings(),
            *self._limits(),
        ]
        appendix = [
            *(self._details() if FEW < len(document.parts) <= MANY else []),
            *self._code(),
        ]
        cited = _cited((*body, *appendix))
        entries = self.references.entries.values()
        return Manuscript(
            title=self._title(),
            date=_finished(self.results),
            abstract=self._abstract(),
            body=tuple(body),
            appendix=tuple(appendix),
            entries=tuple(entry for entry in entries if entry.key in cited),
            taken=tuple(self.taken),
        )

    def _title(self) -> str:
        datasets = list(dict.fromkeys(s.dataset for s in self.document.sections))
        title = self.document.title
        if len(datasets) > 4:
            return f"{title}: {len(datasets)} datasets"
        return f"{title}: {name(', '.join(datasets))}" if datasets else title

    def _abstract(self) -> Spans:
        findings = self.document.findings
        sentences = tuple(dict.fromkeys((*findings[:1], *findings[-1:])))
        if not sentences:
            parts = self.document.parts
            sentences = parts[0].sentences if parts else ("No student run yet.",)
        return text(" ".join(map(sentence, sentences)))

    def _protocol(self) -> Iterator[Block]:
        runs = [record.run for record in self.results.records]
        versions = ", ".join(sorted({run.protocol for run in runs}))
        yield Heading(1, "Protocol")
        yield Paragraph(
            text(sentence(f"{wording.PROTOCOL} Version of the protocol: {versions}."))
        )
        for title, rules in (
            ("Selection and reporting", wording.REPORTING),
            ("Training", wording.TRAINING),
            ("Statistics", wording.STATISTICS),
        ):
            yield Heading(2, title)
            yield Bullets(tuple(wording.cited(rule) for rule in rules))

    def _environment(self) -> Iterator[Block]:
        yield Heading(1, "Environment")
        facts = provenance.facts_table(self.document.facts)
        yield from self._table(facts, "facts")
        for table in self.document.provenance:
            if table.key == "environments":
                yield from self._table(table, "provenance-environments")

    def _strategies(self) -> Iterator[Block]:
        cards = self.document.cards
        if not cards:
            return
        yield Heading(1, "Strategies")
        works = [self.references.add("\n".join(card.references)) for card in cards]
        known = self.references.entries
        sources = [
            "; ".join(known[key].short for key in keys) or card.paper
            for keys, card in zip(works, cards, strict=True)
        ]
        found = grids(cards_table(cards, sources), "strategies", narrow=self.narrow)
        cited = [with_citations(grid, works) for grid in found]
        self.taken += cited
        yield from cited

    def _results(self, few: bool) -> Iterator[Block]:
        document = self.document
        yield Heading(1, "Results")
        if not document.parts:
            yield Paragraph(text("No student run yet."))
            return
        yield Paragraph(text(sentence(" ".join([wording.READING, *self._not_here()]))))
        if document.overview:
            yield from self._table(document.overview, "systems")
        over = [*self._across()]
        if over:
            several = len(document.parts) > 1
            title = "Over all settings" if several else "Accuracy and cost"
            yield from (Heading(2, title), Paragraph(text(OVER)), *over)
        for part in document.parts:
            yield from self._part(part, few)

    def _across(self) -> Iterator[Block]:
        for table in self.document.across:
            yield from self._table(table, f"across-{table.key}")
        yield from map(_picture, self.document.plots[""])

    def _not_here(self) -> Iterator[str]:
        """What there is beside this manuscript."""
        titles = dict.fromkeys(
            table.title
            for part in self.document.parts
            for table in part.tables
            if table.key in ELSEWHERE
        )
        if titles:
            yield f"Not here but in the page and the data files: {'; '.join(titles)}."
        if len(self.document.parts) > MANY:
            yield "The details of each setting stand in the page and the data files."
        elif len(self.document.parts) > FEW:
            yield "The details of each setting stand in the appendix."

    def _part(self, part: Part, few: bool) -> Iterator[Block]:
        section = part.section
        yield Heading(2, clean(section.title))
        yield Paragraph(text(" ".join(map(sentence, part.sentences))))
        yield Paragraph(text(sentence(f"Recipe: {section.recipe.sentence()}.")))
        plots = self.document.plots[section.slug]
        main = [plot for plot in plots if few or plot.kind in MAIN_PLOTS]
        for table in part.tables:
            if few or table.key in MAIN:
                yield from self._of(part, table)
            if table.key == "accuracy":
                yield from map(_picture, main)

    def _details(self) -> Iterator[Block]:
        yield Heading(1, "Details of the settings")
        for part in self.document.parts:
            yield Heading(2, clean(part.section.title))
            for table in part.tables:
                if table.key not in MAIN:
                    yield from self._of(part, table)
            plots = self.document.plots[part.section.slug]
            rest = [plot for plot in plots if plot.kind not in MAIN_PLOTS]
            yield from map(_picture, rest)

    def _code(self) -> Iterator[Block]:
        tables = [t for t in self.document.provenance if t.key != "environments"]
        if tables:
            yield Heading(1, "Code and files")
        for table in tables:
            yield from self._table(table, f"provenance-{table.key}")

    def _findings(self) -> Iterator[Block]:
        found = tuple(text(sentence(words)) for words in self.document.findings)
        if found:
            yield from (Heading(1, "Findings"), Bullets(found))

    def _limits(self) -> Iterator[Block]:
        found = tuple(wording.limits(self.document, self.results))
        if found:
            yield from (Heading(1, "Limits"), Bullets(found))

    def _of(self, part: Part, table: Table) -> list[Grid]:
        """A table of a setting, which its title names; [] if it stands elsewhere."""
        title = f"{table.title}, {part.section.title}"
        slug = f"{part.section.slug}-{table.key}"
        table = replace(table, title=title)
        if table.key in ELSEWHERE:
            self.taken += grids(table, slug, narrow=self.narrow)
            return []
        return self._table(table, slug)

    def _table(self, table: Table, slug: str) -> list[Grid]:
        """The table as it is printed; what was explained before is referred to.

        [] if it has names only: with one seed some have nothing to tell.
        """
        found = grids(table, slug, narrow=self.narrow)
        self.taken += found
        if not _tells(table):
            return []
        before = self.explained.setdefault((table.key, table.caption), slug)
        if before == slug or not table.caption:
            return found
        as_before = (*text(AS_BEFORE), Span("table", before), *text("."))
        return [replace(found[0], caption=as_before), *found[1:]]


def _tells(table: Table) -> bool:
    """Whether any cell beside those of the first column is known."""
    return any(cell.text != MISSING for row in table.rows for cell in row.cells[1:])


def _picture(plot: Plot) -> Picture:
    """The drawn plot, as wide as it was drawn for or as the page allows."""
    pdf = drawn(plot).pdf
    box = re.search(rb"/MediaBox\s*\[\s*0\s+0\s+([\d.]+)\s+([\d.]+)", pdf)
    wide, high = (float(box[1]), float(box[2])) if box else (WIDTH, HEIGHT)
    return Picture(
        stem=plot.stem,
        title=sentence(plot.title),
        caption=text(sentence(plot.caption)),
        alt=clean(plot.alt),
        width=round(wide * min(SCALE, WIDTH / wide, HEIGHT / high), 1),
        pdf=pdf,
    )


def _finished(results: Results) -> date | None:
    """The day on which the last record was finished."""
    times = [datetime.fromisoformat(r.finished_at) for r in results.records]
    return max(times).date() if times else None


def _cited(blocks: Iterable[Block]) -> set[str]:
    """The keys of all works that are cited."""
    return {
        key
        for block in blocks
        for span in _spans(block)
        if span.kind in ("cite", "citet")
        for key in span.text.split(",")
    }


def _spans(block: Block) -> Iterator[Span]:
    if isinstance(block, Paragraph):
        yield from block.spans
    elif isinstance(block, Bullets):
        yield from chain.from_iterable(block.items)
    elif isinstance(block, Grid):
        yield from chain.from_iterable(s.spans for row in block.rows for s in row)


def day(found: date | None) -> str:
    """A date in words: "3 July 2026"; "" for none."""
    return f"{found.day} {found:%B %Y}" if found else ""
