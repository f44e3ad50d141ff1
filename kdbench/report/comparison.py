"""What came of comparing two folders or two strategies: as tables, words and data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from kdbench.records import Headline
from kdbench.report import formats
from kdbench.report.tables import Cell, Column, Row, Table, word
from kdbench.stats import Paired

Verdict = Literal[
    "fails in B",
    "skipped in B",
    "worse",
    "better",
    "fails in A",
    "not significant",
    "not tested",
    "identical",
    "only in A",
    "only in B",
]

ORDER: dict[Verdict, str] = {
    "fails in B": "with a run that fails in B",
    "skipped in B": "with a run that is skipped in B",
    "worse": "significantly worse",
    "better": "significantly better",
    "fails in A": "with a run that fails in A",
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
    Column("difference", "B - A"),
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
    "A is {a}, B is {b}. Means over the n seeds that finished in both, and their "
    "difference, paired by seed, ± half-width of the 95% t-interval; positive where B "
    "is better. Better and worse: paired t-test over seeds, two-sided, Holm-adjusted "
    "over all rows that are not identical, significant at {level}{tolerance}; or the "
    "same difference in each of 3 seeds or more, for which there is no t-test. "
    "Identical: the same value for every seed."
)


@dataclass(frozen=True)
class Compared:
    """One strategy in one setting, in A and in B, over the seeds that both finished.

    `by_seed` holds B - A for each, turned so that positive is better, `difference`
    their mean; `items` is its 95% bootstrap interval over test items, which says
    nothing about other trainings.
    """

    dataset: str
    setting: str
    label: str
    headline: Headline
    digits: int
    verdict: Verdict
    a: float | None = None
    b: float | None = None
    by_seed: Mapping[int, float] = field(default_factory=dict)
    compressed: bool = False
    difference: Paired | None = None
    p_holm: float | None = None
    p_sign_flip: float | None = None
    items: tuple[float, float] | None = None

    @property
    def scale(self) -> tuple[Headline, str]:
        """What must be equal for differences to be averaged."""
        return self.headline, "" if self.headline.unit else self.dataset


@dataclass(frozen=True)
class Overall:
    """Mean difference over `rows` rows of one scale, paired by seed."""

    difference: Paired
    rows: int
    unit: str
    digits: int


@dataclass(frozen=True)
class Comparison:
    """What came of it: a row for each strategy and setting, and what else differs.

    `damaged` are the files that were left out, each with its reason.
    """

    names: tuple[str, str]
    rows: tuple[Compared, ...]
    overall: Overall | None
    changes: tuple[tuple[str, str, str], ...] = ()
    damaged: tuple[tuple[str, str], ...] = ()
    level: float = 0.05
    tolerance: float = 0.0

    @property
    def worse(self) -> list[Compared]:
        """What should stop a change."""
        bad = ("worse", "fails in B", "skipped in B")
        return [row for row in self.rows if row.verdict in bad]


def table(comparison: Comparison) -> Table:
    """A row for each strategy and setting, those that are worse first."""
    order = list(ORDER)
    rows = sorted(comparison.rows, key=lambda row: order.index(row.verdict))
    a, b = comparison.names
    units = {row.headline.gain_unit for row in rows}
    unit = units.pop() if len(units) == 1 else ""
    return Table(
        key="comparison",
        title=f"{b} against {a}",
        caption=CAPTION.format(
            a=a,
            b=b,
            level=comparison.level,
            tolerance=f", worse only by more than {comparison.tolerance:g}"
            if comparison.tolerance
            else "",
        ),
        columns=tuple(
            replace(column, unit=unit) if column.key == "difference" else column
            for column in COLUMNS
        ),
        rows=tuple(map(_row, rows)),
    )


def _row(row: Compared) -> Row:
    unit = f" ({row.headline.unit})" if row.headline.unit else ""
    low, high = row.items or (None, None)
    gain = row.difference
    half, p = (gain.half_width, gain.p_value) if gain else (None, None)
    count = gain.n if gain else 0
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
            Cell(half, formats.fixed(half, row.digits)),
            Cell(count, str(count)),
            Cell(p, formats.p_value(p)),
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
        gain = formats.spread(overall.difference, overall.digits, signed=True)
        p = overall.difference.p_value
        tested = f", p {formats.p_value(p)}" if p is not None else ""
        yield (
            f"Mean over {overall.rows} of them, paired by seed: {gain}{overall.unit} "
            f"({formats.plural(overall.difference.n, 'seed')}{tested})."
        )
    if many["not tested"]:
        yield (
            "Not tested: fewer than two seeds finished in both, or two with the same "
            "difference; no difference can be told from chance there."
        )
    if many["not significant"]:
        yield "Not significant does not mean equal: few seeds show only large changes."
    if many["only in A"]:
        yield "What is only in A was not compared, and does not count as worse."
    if comparison.damaged:
        yield f"{formats.plural(len(comparison.damaged), 'damaged file')} left out:"
        yield from (f"  {path}: {reason}" for path, reason in comparison.damaged)


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
        "damaged": [
            dict(zip(("file", "reason"), one, strict=True))
            for one in comparison.damaged
        ],
        "summary": list(sentences(comparison)),
    }
