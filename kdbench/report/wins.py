"""Wins, ties and losses: how often one strategy is significantly better than another.

A win is decided by the paired t-test over the seeds of a setting at 0.05.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdbench.report import formats
from kdbench.report.ranking import references, strategies
from kdbench.report.sections import Section
from kdbench.report.tables import CSV_ONLY, Cell, Column, Row, Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CAPTION = (
    "In how many settings each strategy wins, ties and loses. A win is a significant "
    "difference by the paired t-test over the seeds of the setting, at 0.05; a tie is "
    "every other comparison on two seeds or more, which does not show that the two are "
    "equal. Against kd and against scratch the p-values are those of the accuracy "
    "tables, Holm-adjusted over the strategies: the chance that a setting has any "
    "false win or loss is at most 5% for each of the two. Against all others they are "
    "not adjusted, since over so many pairs a few seeds could show next to nothing: of "
    "comparisons of equal strategies one in 20 comes out as a win of one of them. "
    "Sorted by wins minus losses against all others."
)


@dataclass(frozen=True)
class Wins:
    """(labels, labels) counts of settings, the row's strategy against the column's.

    `wins[i, j]` counts where i is significantly better than j, unadjusted; `tested`
    where both have two seeds in common.
    """

    labels: list[str]
    wins: NDArray[np.int64]
    tested: NDArray[np.int64]


def count(sections: Sequence[Section]) -> Wins:
    """Each pair of strategies in each setting, compressed students left out."""
    import numpy as np

    by_section = [[s.label for s in strategies(section)] for section in sections]
    labels = list(dict.fromkeys(label for found in by_section for label in found))
    place = {label: i for i, label in enumerate(labels)}
    wins = np.zeros((len(labels), len(labels)), dtype=np.int64)
    tested = wins.copy()
    for section, found in zip(sections, by_section, strict=True):
        better, known = _better(section, found)
        where = np.ix_([place[label] for label in found], [place[k] for k in found])
        wins[where] += better
        tested[where] += known
    return Wins(labels, wins, tested)


def _better(
    section: Section, labels: Sequence[str]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where row beats column, and where the two could be tested.

    `stats.paired` for all pairs at once, with its rule for differences that are all
    equal: no test is defined, and that is no win.
    """
    import numpy as np
    from scipy import special

    runs = [section.values(label, section.headline.name) for label in labels]
    values = np.array(
        [[found.get(seed, np.nan) for seed in section.seeds] for found in runs]
    ).reshape(len(labels), len(section.seeds))
    differences = section.sign * (values[:, None] - values[None, :])
    there = ~np.isnan(differences)
    n = there.sum(axis=2)
    mean = np.where(there, differences, 0).sum(axis=2) / np.maximum(n, 1)
    squares = np.where(there, differences - mean[..., None], 0) ** 2
    error = np.sqrt(squares.sum(axis=2) / np.maximum(n - 1, 1))
    largest = np.nanmax(np.abs(values), axis=1, initial=1e-300)
    clear = error > 1e-9 * np.maximum(largest[:, None], largest[None, :])
    t = np.divide(mean * np.sqrt(n), error, out=np.zeros_like(mean), where=clear)
    p = 2 * special.stdtr(np.maximum(n - 1, 1), -np.abs(t))
    known = (n >= 2) & ~np.eye(len(labels), dtype=bool)
    return known & (p < formats.SIGNIFICANT) & (mean > 0), known


def wins_table(sections: Sequence[Section]) -> Table | None:
    """One row for each strategy; None where nothing could be tested."""
    found = count(sections)
    if not found.tested.any():
        return None
    against_all = {
        label: (
            int(found.wins[i].sum()),
            int(found.tested[i].sum()),
            int(found.wins[:, i].sum()),
        )
        for i, label in enumerate(found.labels)
    }
    kd, scratch = _against(sections, "kd"), _against(sections, "scratch")
    columns = [Column("strategy", "Strategy", numeric=False)]
    for key, title in (("kd", "kd"), ("scratch", "scratch"), ("all", "all others")):
        columns += [
            Column(f"{key}_net", f"Against {title}", "wins / ties / losses"),
            *(
                Column(f"{key}_{word}", word, level=CSV_ONLY)
                for word in ("wins", "ties", "losses")
            ),
        ]
    known = references(sections)
    order = sorted(
        found.labels,
        key=lambda label: (against_all[label][2] - against_all[label][0], label),
    )
    rows = [
        Row(
            (
                Cell(label, label),
                *_cells(kd.get(label)),
                *_cells(scratch.get(label)),
                *_cells(against_all[label]),
            ),
            "reference" if label in known else "plain",
        )
        for label in order
    ]
    return Table(
        key="wins",
        title="Wins, ties and losses",
        caption=CAPTION,
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(_chance(found),),
    )


def _chance(found: Wins) -> str:
    """How many of the unadjusted comparisons are significant, how many by chance."""
    tests, clear = int(found.tested.sum()) // 2, int(found.wins.sum())
    expected = formats.SIGNIFICANT * tests
    noun = "comparison" if tests == 1 else "comparisons"
    return (
        f"Against all others: {tests:,} {noun} of two strategies in a setting, "
        f"{clear:,} of them significant; about {formats.significant(expected, 2)} "
        "would be expected if no two strategies differed at all."
    )


def _against(
    sections: Sequence[Section], baseline: str
) -> dict[str, tuple[int, int, int]]:
    """Label -> wins, tests and losses against a baseline, by the adjusted p-values."""
    found: dict[str, tuple[int, int, int]] = {}
    for section in sections:
        for standing in strategies(section):
            kd = baseline == "kd"
            gain = standing.over_kd if kd else standing.over_scratch
            p = standing.p_kd if kd else standing.p_scratch
            if gain is None or gain.n < 2:
                continue
            clear = p is not None and p < formats.SIGNIFICANT
            won, tested, lost = found.get(standing.label, (0, 0, 0))
            found[standing.label] = (
                won + (clear and gain.mean > 0),
                tested + 1,
                lost + (clear and gain.mean < 0),
            )
    return found


def _cells(counts: tuple[int, int, int] | None) -> Iterator[Cell]:
    """Wins minus losses, written as all three; then each of them."""
    if counts is None or not counts[1]:
        yield from [Cell(None, formats.MISSING)] * 4
        return
    won, tested, lost = counts
    tied = tested - won - lost
    yield Cell(won - lost, f"{won} / {tied} / {lost}")
    for number in (won, tied, lost):
        yield Cell(number, str(number))


def matrix_table(sections: Sequence[Section]) -> Table | None:
    """Each strategy against each other one, for data files; None without a test."""
    found = count(sections)
    if not found.tested.any():
        return None
    rows = []
    for i, label in enumerate(found.labels):
        for j, other in enumerate(found.labels):
            if tested := int(found.tested[i, j]):
                won, lost = int(found.wins[i, j]), int(found.wins[j, i])
                numbers = (won, tested - won - lost, lost)
                cells = (Cell(number, str(number)) for number in numbers)
                rows.append(Row((Cell(label, label), Cell(other, other), *cells)))
    return Table(
        key="win-matrix",
        title="Wins, ties and losses of every two strategies",
        caption=CAPTION,
        columns=(
            Column("strategy", "Strategy", numeric=False),
            Column("against", "Against", numeric=False),
            Column("wins", "Wins"),
            Column("ties", "Ties"),
            Column("losses", "Losses"),
        ),
        rows=tuple(rows),
    )
