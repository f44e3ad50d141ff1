"""The table of what the strategies are, with citations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from kdbench.cards import Card
from kdbench.report.tables import Column, Row, Table, word
from kdbench.report.typesetting.blocks import Grid, Slot, Span

SOURCE = "Source"


def with_citations(grid: Grid, works: Sequence[Sequence[str]]) -> Grid:
    """The strategies with citations in place of the names of their sources."""
    place = next(
        (i for i, c in enumerate(grid.columns) if c.heading == (SOURCE,)), None
    )
    if place is None:
        return grid
    rows = [
        (*row[:place], Slot((Span("citet", ",".join(keys)),)), *row[place + 1 :])
        if keys
        else row
        for row, keys in zip(grid.rows, works, strict=True)
    ]
    return replace(grid, rows=tuple(rows))


def cards_table(cards: Sequence[Card], sources: Sequence[str]) -> Table:
    """What each strategy is: one row for each card, by family."""
    columns = (
        Column("strategy", "Strategy", numeric=False),
        Column("family", "Family", numeric=False, level=3),
        Column("source", SOURCE, numeric=False),
        Column("summary", "What it does", numeric=False),
        Column("defaults", "Defaults", numeric=False),
    )
    many = Counter(card.strategy for card in cards)
    rows = []
    for card, source in zip(cards, sources, strict=True):
        code = f" (code {card.code})" if many[card.strategy] > 1 else ""
        defaults = ", ".join(f"{p.name}={p.default}" for p in card.parameters)
        texts = (f"{card.strategy}{code}", card.family, source, card.summary, defaults)
        rows.append(Row(tuple(map(word, texts))))
    return Table(
        key="strategies",
        title="Strategies",
        caption="The strategies of this report, by family, with the defaults of their "
        "hyper-parameters. Formulas and what each reads and costs stand on the page's "
        "cards.",
        columns=columns,
        rows=tuple(rows),
    )
