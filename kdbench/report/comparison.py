"""What came of comparing two folders or two strategies: as tables, words and data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from kdbench.records import Headline
from kdbench.report import formats
from kdbench.report.tables import Cell, Column, Row, Table, word
from kdbench.stats import Paired

Verdict = Literal[
    "fails now",
    "worse",
    "better",
    "finishes now",
    "not significant",
    "not tested",
    "identical",
    "only in A",
    "only in B",
]

ORDER: dict[Verdict, str] = {
    "fails now": "with a run that fails now",
    "worse": "significantly worse",
    "better": "significantly better",
    "finishes now": "with a run that failed before",
    "not significant": "not significantly different",
    "not tested": "not tested",
    "identical": "identical",
    "only in A": "only in A",
    "only in B": "only in B",
}
"""Verdicts as a table lists them, and in a sentence."""

COLUMNS = (
    Column("setting", "Dataset / pair", numeric=False),
    Column("strategy", "Strategy", numeric=False),
    Column("measure", "Measure", numeric=False, level=4),
    Column("a", "A", level=2),
    Column("b", "B", level=2),
    Column("difference", "B against A"),
    Column("half_width", "95% half-width", level=9),
    Column("n", "n", level=3),
    Column("p_value", "p", "t-test", level=5),
    Column("p_holm", "p", "Holm"),
    Column("p_sign_flip", "p", "sign flip", level=6),
    Column("items_low", "Items, 95% from", level=7),
    Column("items_high", "to", level=7),
    Column("verdict", "Verdict", numeric=False),
)

CAPTION = (
    "Differences are B - A over the seeds that both finished (paired by seed; positive "
    "where B is better) ± half-width of the 95% t-interval. Better and worse: paired "
    "t-test over seeds, two-sided, Holm-adjusted over all rows that are not identical, "
    "significant at {level}{tolerance}. Sign flip: the permutation test of the same "
    "differences, not adjusted. Items: 95% bootstrap interval of the difference over "
    "test items, the trained students as they are: it says nothing about other "
    "trainings. Identical: the same value for every seed."
)


@dataclass(frozen=True)
class Compared:
    """One strategy in one setting, in A and in B.

    `by_seed` holds B - A for the seeds that both finished, turned so that positive is
    better, `difference` their mean; `items` is its bootstrap interval over test items.
    """

    setting: str
    label: str
    headline: Headline
    digits: int
    a: float | None
    b: float | None
    verdict: Verdict
    by_seed: Mapping[int, float] = field(default_factory=dict)
    compressed: bool = False
    difference: Paired | None = None
    p_holm: float | None = None
    p_sign_flip: float | None = None
    items: tuple[float, float] | None = None


@dataclass(frozen=True)
class Comparison:
    """What came of it: a row for each strategy and setting, and what else differs.

    `overall` is the mean difference over the rows with one unit, paired by seed.
    """

    names: tuple[str, str]
    rows: tuple[Compared, ...]
    overall: Paired | None
    changes: tuple[tuple[str, str, str], ...] = ()
    level: float = 0.05
    tolerance: float = 0.0

    @property
    def worse(self) -> list[Compared]:
        """What should stop a change."""
        return [row for row in self.rows if row.verdict in ("worse", "fails now")]


def table(comparison: Comparison) -> Table:
    """A row for each strategy and setting, those that are worse first."""
    order = list(ORDER)
    rows = sorted(comparison.rows, key=lambda row: order.index(row.verdict))
    tolerance = comparison.tolerance
    return Table(
        key="comparison",
        title=f"{comparison.names[1]} against {comparison.names[0]}",
        caption=CAPTION.format(
            level=comparison.level,
            tolerance=f", worse only by more than {tolerance:g}" if tolerance else "",
        ),
        columns=COLUMNS,
        rows=tuple(map(_row, rows)),
    )


def _row(row: Compared) -> Row:
    unit = f" ({row.headline.unit})" if row.headline.unit else ""
    low, high = row.items or (None, None)
    gain = row.difference
    return Row(
        (
            word(row.setting),
            word(row.label),
            word(f"{row.headline.title}{unit}"),
            Cell(row.a, formats.fixed(row.a, row.digits)),
            Cell(row.b, formats.fixed(row.b, row.digits)),
            Cell(
                gain.mean if gain else None,
                formats.spread(gain, row.digits, signed=True),
            ),
            Cell(
                gain.half_width if gain else None,
                formats.fixed(gain.half_width if gain else None, row.digits),
            ),
            Cell(gain.n if gain else 0, str(gain.n if gain else 0)),
            Cell(
                gain.p_value if gain else None,
                formats.p_value(gain.p_value if gain else None),
            ),
            Cell(row.p_holm, formats.p_value(row.p_holm)),
            Cell(row.p_sign_flip, formats.p_value(row.p_sign_flip)),
            Cell(low, formats.fixed(low, row.digits)),
            Cell(high, formats.fixed(high, row.digits)),
            word(row.verdict),
        ),
        "plain" if gain else "missing",
    )


def changes_table(comparison: Comparison) -> Table | None:
    """What else differs between A and B; None where nothing does."""
    if not comparison.changes:
        return None
    columns = (
        Column("what", "What", numeric=False),
        Column("a", "A", numeric=False),
        Column("b", "B", numeric=False),
    )
    rows = tuple(Row(tuple(map(word, change))) for change in comparison.changes)
    caption = "What the runs were made with, where it differs."
    return Table("changes", "What else changed", caption, columns, rows)


def sentences(comparison: Comparison) -> Iterator[str]:
    """What came of it, in words."""
    many = Counter(row.verdict for row in comparison.rows)
    found = ", ".join(f"{many[v]} {ORDER[v]}" for v in ORDER if many[v])
    yield f"{formats.plural(len(comparison.rows), 'comparison')}: {found}."
    overall = comparison.overall
    if overall:
        digits = max(row.digits for row in comparison.rows)
        gain = formats.spread(overall, digits, signed=True)
        p = formats.p_value(overall.p_value)
        seeds = formats.plural(overall.n, "seed")
        yield f"Mean over them, paired by seed: {gain} ({seeds}, p {p})."
    if many["not tested"]:
        yield (
            "Not tested: fewer than two seeds stand in both, so no difference can be "
            "told from chance; run with --seeds 3 or more."
        )
    if many["not significant"]:
        yield "Not significant does not mean equal: few seeds show only large changes."


def as_data(comparison: Comparison) -> dict[str, object]:
    """Everything as plain data, for programs."""
    rows = table(comparison)
    keys = [column.key for column in rows.columns]
    return {
        "a": comparison.names[0],
        "b": comparison.names[1],
        "level": comparison.level,
        "tolerance": comparison.tolerance,
        "worse": len(comparison.worse),
        "rows": [
            dict(zip(keys, (cell.value for cell in row.cells), strict=True))
            for row in rows.rows
        ],
        "overall": asdict(comparison.overall) if comparison.overall else None,
        "changes": [
            dict(zip(("what", "a", "b"), change, strict=True))
            for change in comparison.changes
        ],
        "summary": list(sentences(comparison)),
    }
