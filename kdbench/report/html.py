"""report.html: one page that needs nothing but itself.

Its Content-Security-Policy forbids it all network, and every script but its own two.
Everything can be read without scripts too.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kdbench import __version__
from kdbench.cards import Card
from kdbench.records import PROTOCOL
from kdbench.report.document import Part, build
from kdbench.report.plots.style import Plot, inline
from kdbench.report.provenance import plugin_name
from kdbench.report.sections import Section
from kdbench.report.tables import Column, Row, Table
from kdbench.store import Results

TEMPLATES = Path(__file__).with_name("templates")
LONG = 8
"""A table of more rows has a field to filter it by."""
SPARE = 5
"""The level from which a column of words is left out on a phone."""
BESIDE = {
    "accuracy": ("gains", "curves"),
    "quality": ("fidelity", "calibration"),
    "matrix": ("heat",),
    "ranks": ("ranks", "profile"),
}
"""Key of a table -> the kinds of plots that follow it."""


class Ids:
    """Ids for elements: safe in an address, and each given once."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def __call__(self, *words: str) -> str:
        """What the words say, as far as it is ASCII, with a number where needed."""
        stem = re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")
        found, many = stem, 1
        while found in self._given:
            many += 1
            found = f"{stem}-{many}"
        self._given.add(found)
        return found


@dataclass(frozen=True)
class Described:
    """A card with the id of its place; `versions`: of its strategy on this page."""

    id: str
    card: Card
    versions: int


Links = Mapping[str, Described]
"""Label of a run -> its strategy's card."""


@dataclass(frozen=True)
class Block:
    """A table as shown, or a plot; `links` are those of the labels in the table."""

    id: str
    table: Table | None
    plot: Plot | None
    links: Links

    @property
    def long(self) -> bool:
        return self.table is not None and len(self.table.rows) > LONG

    @cached_property
    def names(self) -> int:
        """The place of the column that holds labels of runs, or -1."""
        keys = [column.key for column in self.table.columns] if self.table else []
        return keys.index("strategy") if "strategy" in keys else -1

    def spare(self, column: Column) -> str:
        """The class of a column of words that a phone has no room for."""
        return "spare" if column.level >= SPARE and not column.numeric else ""

    def name(self, row: Row) -> str:
        """The label that a row is about, or ""."""
        return str(row.cells[self.names].value or "") if self.names >= 0 else ""


@dataclass(frozen=True)
class Chapter:
    """One setting with its place in the page."""

    id: str
    part: Part
    blocks: tuple[Block, ...]

    @property
    def tables(self) -> list[Block]:
        return [block for block in self.blocks if block.table]


def render(results: Results, folder: Path) -> Sequence[Path]:
    """Write `folder`/report.html."""
    document = build(results)
    document.draw()
    ids = Ids()
    cards = _cards(document.cards, ids)
    everywhere = _links(document.sections, cards)
    tables = (*([document.overview] if document.overview else []), *document.across)
    style, early, late = map(_static, ("page.css", "theme.js", "page.js"))
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            document=document,
            facts=dict(document.facts),
            across=_blocks("across", tables, document.plots[""], everywhere, ids),
            chapters=[
                _chapter(part, document.plots[part.section.slug], cards, ids)
                for part in document.parts
            ],
            cards=cards,
            provenance=_blocks("provenance", document.provenance, (), everywhere, ids),
            protocol=PROTOCOL if _obeyed(document.sections) else "",
            style=style,
            early=early,
            late=late,
            policy=_policy(early, late),
            version=__version__,
        )
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return [path]


def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["tidy"] = _tidy
    found.filters["breakable"] = _breakable
    found.filters["plugin_name"] = plugin_name
    found.globals["svg"] = _svg
    return found


def _tidy(sentence: str) -> str:
    """The sentence with numbers that stay on one line with what belongs to them."""
    return re.sub(r" (?=[±=%])|(?<=[±=]) ", "\u00a0", sentence)


def _breakable(label: str) -> Markup:
    """The label, which may go on in a new line after an underscore or a bracket."""
    return Markup("<wbr>").join(re.findall(r"[^_/=\[,]*[_/=\[,]?", label)[:-1])


def _static(name: str) -> Markup:
    """The text of a file of ours that goes into the page as it is."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))  # noqa: S704


def _policy(*scripts: str) -> str:
    """What the page allows itself: its own style and scripts, and nothing else."""
    sums = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(s).decode()}'" for s in sums)
    return (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src {allowed}; base-uri 'none'; form-action 'none'"
    )


def _svg(plot: Plot) -> Markup:
    """The plot's SVG; matplotlib has escaped every text in it."""
    label = Markup(' aria-label="{}"').format(plot.alt)
    drawn = inline(plot).replace(' role="img"', f' role="img"{label}', 1)
    return Markup(drawn)  # noqa: S704  # escaped by matplotlib and the line above


def _obeyed(sections: Sequence[Section]) -> bool:
    """Whether the rules that the page states are those of the records."""
    return all(section.setting[3] == PROTOCOL for section in sections)


def _cards(found: Sequence[Card], ids: Ids) -> list[Described]:
    names = [card.strategy for card in found]
    return [
        Described(ids("strategy", card.strategy), card, names.count(card.strategy))
        for card in found
    ]


def _links(sections: Sequence[Section], cards: Sequence[Described]) -> Links:
    """For each label the card of the code that it ran with, or of its strategy."""
    by_name = {found.card.strategy: found for found in reversed(cards)}
    by_code = {(found.card.strategy, found.card.code): found for found in cards}
    links: dict[str, Described] = {}
    for section in sections:
        for label, seeds in section.runs.items():
            run = next(iter(seeds.values())).run
            key = (run.strategy, run.code.get("strategy", ""))
            found = by_code.get(key) or by_name.get(run.strategy)
            if found:
                links.setdefault(label, found)
    return links


def _chapter(
    part: Part, plots: Sequence[Plot], cards: Sequence[Described], ids: Ids
) -> Chapter:
    own = ids("setting", part.section.slug)
    links = _links([part.section], cards)
    return Chapter(own, part, tuple(_blocks(own, part.tables, plots, links, ids)))


def _blocks(
    place: str, tables: Sequence[Table], plots: Sequence[Plot], links: Links, ids: Ids
) -> list[Block]:
    """Accuracy drawn, then the tables, plots beside what they show, then the others."""
    return [
        Block(ids(place, thing.key), thing.shown(), None, links)
        if isinstance(thing, Table)
        else Block(ids(place, "plot", thing.kind), None, thing, links)
        for thing in _in_order(tables, plots)
    ]


def _in_order(tables: Sequence[Table], plots: Sequence[Plot]) -> Iterator[Table | Plot]:
    shown = {kind for table in tables for kind in BESIDE.get(table.key, ())}
    yield from (plot for plot in plots if plot.kind == "accuracy")
    for table in tables:
        yield table
        beside = BESIDE.get(table.key, ())
        yield from (plot for plot in plots if plot.kind in beside)
    rest = (plot for plot in plots if plot.kind not in {"accuracy", *shown})
    yield from rest
