"""Strategies over several settings: who may be ranked, mean ranks, profiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdbench import stats
from kdbench.report import formats
from kdbench.report.analysis import Standing, standings
from kdbench.report.averages import comparable
from kdbench.report.sections import Section
from kdbench.report.tables import CSV_ONLY, Cell, Column, Row, Table, mark_best
from kdbench.stats import Ranks

if TYPE_CHECKING:
    import pandas as pd

TAUS = (0.0, 0.1, 0.2, 0.5, 1.0)
"""Distances to the best, in points."""
FEWEST_FOR_A_PROFILE = 3

RANKS = (
    "Mean over {settings} settings of the rank of each strategy by its mean headline, "
    "1 the best; equal ones share the middle of their ranks. Ranked are the strategies "
    "with a result in every setting, so the ranks of each setting are among these only."
)
INDEPENDENT = (
    "The test takes the settings for independent; pairs of models that share a dataset "
    "or a student are not quite."
)
FEW_SETTINGS = 10
APPROXIMATE = (
    " Its chi-square approximation errs on the safe side for so few settings: it finds "
    "less than it could. Demsar (2006) advises more than 10."
)
PROFILE = (
    "Share of the {settings} settings in which the strategy's mean is within so many "
    "points of the highest mean of any strategy ranked. 0: it is the highest itself. "
    "No test: a distance as small as the spread between seeds says little."
)
SURVIVORS = "* not all runs finished in every setting: the mean is over those that did."


def strategies(section: Section) -> list[Standing]:
    """The standings of a section that have a result, compressed students left out."""
    return [s for s in standings(section) if s.quality and not s.compression]


def scores(sections: Sequence[Section]) -> pd.DataFrame:
    """Mean headline of the strategies that have a result in every setting.

    Index: the sections' titles; columns: labels in alphabetical order, scratch and kd
    among them, compressed students and teachers not; values: `Standing.oriented`, so
    that higher is better. There is no NaN. Without a strategy that has a result in
    every setting there is no column.
    """
    import pandas as pd

    found = [{s.label: s.oriented for s in strategies(section)} for section in sections]
    common = set.intersection(*map(set, found)) if found else set()
    columns = sorted(common)
    return pd.DataFrame(
        [[means[label] for label in columns] for means in found],
        index=[section.title for section in sections],
        columns=columns,
        dtype=float,
    )


def left_out(sections: Sequence[Section]) -> list[str]:
    """The labels that have a run, but not a result in every setting."""
    found = {
        s.label for section in sections for s in standings(section) if not s.compression
    }
    return sorted(found - set(scores(sections).columns))


def references(sections: Sequence[Section]) -> list[str]:
    """The labels that stand for scratch and kd wherever they were run."""
    baselines = [(s.baseline("scratch"), s.baseline("kd")) for s in sections]
    found = dict.fromkeys(
        label for own in zip(*baselines, strict=True) for label in own
    )
    return [
        label
        for label in found
        if label
        and all(
            label in own
            for own, section in zip(baselines, sections, strict=True)
            if label in section.runs
        )
    ]


def ranks_table(sections: Sequence[Section]) -> Table | None:
    """Mean ranks, the best first; None with fewer than two strategies to rank."""
    table = scores(sections)
    if table.shape[1] < 2:
        return None
    ranks = stats.rank(table)
    each = [stats.rank(table.iloc[[place]]).mean for place in range(len(table))]
    known, partial = references(sections), _partial(sections)
    best, distance = min(ranks.mean.values()), ranks.critical_difference
    columns = (
        Column("strategy", "Strategy", numeric=False),
        Column("mean_rank", "Mean rank", better="lower"),
        *(Column(s.slug, s.title, "rank", level=CSV_ONLY) for s in sections),
    )
    rows = []
    for label, mean in sorted(ranks.mean.items(), key=lambda found: found[::-1]):
        near = distance is not None and mean - best < distance
        cells = (
            Cell(label, f"{label}*" if label in partial else label),
            Cell(mean, f"{mean:.2f}", near=near),
            *(Cell(own[label], f"{own[label]:g}") for own in each),
        )
        rows.append(Row(cells, "reference" if label in known else "plain"))
    shown = bool(partial & set(ranks.mean))
    return Table(
        key="ranks",
        title="Mean ranks",
        caption=RANKS.format(settings=len(sections)),
        columns=columns,
        rows=mark_best(columns, rows),
        notes=(*_tests(ranks), *_unranked(sections), *((SURVIVORS,) if shown else ())),
    )


def _partial(sections: Sequence[Section]) -> set[str]:
    """The labels that have a result, but not of every run, in some setting."""
    found = (s for section in sections for s in strategies(section))
    return {s.label for s in found if s.status != "finished"}


def _tests(ranks: Ranks) -> list[str]:
    """What Friedman's and Nemenyi's tests say, or why they say nothing."""
    told = []
    if ranks.p_value is not None:
        p = formats.p_value(ranks.p_value)
        shown = p if p.startswith("<") else f"= {p}"
        told.append(
            f"Friedman's test over {ranks.settings} settings and {len(ranks.mean)} "
            f"strategies: p {shown}. {INDEPENDENT}"
            + (APPROXIMATE if ranks.settings <= FEW_SETTINGS else "")
        )
    if ranks.critical_difference is not None:
        told.append(
            "Nemenyi's critical difference at 0.05, adjusted for all pairs: "
            f"{ranks.critical_difference:.2f}. Strategies whose mean ranks differ by "
            "less are not told apart (†: not from the best)."
        )
    return [*told, ranks.reason] if ranks.reason else told


def _unranked(sections: Sequence[Section]) -> list[str]:
    names = left_out(sections)
    if not names:
        return []
    what = "a strategy" if len(names) == 1 else f"{len(names)} strategies"
    listed = formats.listed(names, most=12)
    return [f"Not ranked, {what} without a result in every setting: {listed}."]


def _within(sections: Sequence[Section]) -> tuple[list[Section], pd.DataFrame] | None:
    """Settings in percent and their profile; None with too few of them."""
    shared = comparable(sections)
    if not shared or shared[0].headline.unit != "%" or len(shared) < 2:
        return None
    table = scores(shared)
    return (shared, stats.profile(table)) if table.shape[1] > 1 else None


def profile_table(sections: Sequence[Section]) -> Table | None:
    """The profile at a few distances; None with few settings in percent."""
    found = _within(sections)
    if found is None or len(found[0]) < FEWEST_FOR_A_PROFILE:
        return None
    shared, curve = found
    columns = (
        Column("strategy", "Strategy", numeric=False),
        *(Column(f"within_{tau:g}", f"Within {tau:g}", "%") for tau in TAUS),
    )
    steps = {tau: curve[curve.index <= tau + 1e-9].iloc[-1] for tau in TAUS}
    known = references(shared)
    rows = []
    order = sorted((*(-steps[tau][k] for tau in TAUS), str(k)) for k in curve.columns)
    for *_, label in order:
        shares = [100 * float(steps[tau][label]) for tau in TAUS]
        cells = (
            Cell(str(label), str(label)),
            *(Cell(share, formats.fixed(share, 0)) for share in shares),
        )
        rows.append(Row(cells, "reference" if label in known else "plain"))
    left = len(sections) - len(shared)
    notes = [
        f"{formats.plural(left, 'setting')} with another headline left out."
    ] * bool(left)
    return Table(
        key="profile",
        title="Performance profile",
        caption=PROFILE.format(settings=len(shared)),
        columns=columns,
        rows=tuple(rows),
        notes=tuple(notes),
    )


def curve_table(sections: Sequence[Section]) -> Table | None:
    """The whole profile, for data files: every distance at which a share changes."""
    found = _within(sections)
    if found is None:
        return None
    shared, curve = found
    rows = []
    for label in curve.columns:
        before = 0.0
        for tau, share in curve[label].items():
            if share > before:
                numbers = (float(str(tau)), float(share))
                cells = (Cell(number, f"{number:g}") for number in numbers)
                rows.append(Row((Cell(str(label), str(label)), *cells)))
            before = float(share)
    return Table(
        key="profile-curve",
        title="Performance profile, every step",
        caption=PROFILE.format(settings=len(shared)),
        columns=(
            Column("strategy", "Strategy", numeric=False),
            Column("tau", "Distance to the best", "points"),
            Column("share", "Share of settings"),
        ),
        rows=tuple(rows),
    )
