"""Mean ranks with the critical difference, and performance profiles.

Demsar 2006, "Statistical comparisons of classifiers over multiple data sets", JMLR 7,
whose diagram is drawn here with one row for each strategy, so that fifty stay readable.
Dolan & More 2002, "Benchmarking optimization software with performance profiles".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kdbench import stats
from kdbench.report.formats import significant
from kdbench.report.plots.labels import CLEAR
from kdbench.report.plots.orientation import least, row_of
from kdbench.report.plots.style import (
    COLOURS,
    DASHES,
    FAINT,
    INK,
    Plot,
    floor,
    shorten,
    tip,
)
from kdbench.report.ranking import scores
from kdbench.report.sections import Section
from kdbench.stats import Ranks

if TYPE_CHECKING:
    import pandas as pd

FEWEST_STRATEGIES = 3
FEWEST_RANKED, FEWEST_PROFILED = 2, 3
"""Settings from which on ranks and profiles are drawn."""
NAMED = 3
"""How many of the highest profiles have their names, beside scratch and kd."""


def rank_plots(sections: Sequence[Section]) -> list[Plot]:
    """The critical-difference diagram and the performance profile."""
    return [*_ranks(sections), *_profiles(sections)]


def _ranks(sections: Sequence[Section]) -> list[Plot]:
    if len(sections) < FEWEST_RANKED:
        return []
    table = scores(sections)
    if table.shape[1] < FEWEST_STRATEGIES:
        return []
    found = stats.rank(table)
    return [
        Plot(
            kind="ranks",
            stem="overall-ranks",
            title="Mean ranks",
            alt=f"Mean ranks of {len(found.mean)} strategies over {found.settings} "
            "settings"
            + (", with the critical difference" if found.critical_difference else "")
            + "; the table of ranks holds the same numbers.",
            caption=_rank_caption(found),
            draw=partial(draw_ranks, found, _references(sections)),
        )
    ]


def _references(sections: Sequence[Section]) -> dict[str, str]:
    """Label -> "scratch" or "kd"."""
    return {
        label: strategy
        for section in sections
        for strategy in ("scratch", "kd")
        if (label := section.baseline(strategy))
    }


def _rank_caption(found: Ranks) -> str:
    parts = [
        f"Dots: rank among the {len(found.mean)} strategies that have a result in all "
        f"{found.settings} settings, by their mean headline; mean over the settings. 1 "
        "is the best; right is better. Hollow: scratch and kd."
    ]
    if found.critical_difference is None:
        parts.append(found.reason)
    else:
        p = found.p_value or 0.0
        told = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        parts.append(
            f"Friedman's test that all are alike: {told}. Bar on top: the critical "
            f"difference of Nemenyi's test at 0.05, {found.critical_difference:.2f} "
            "(Demsar 2006): strategies whose mean ranks are closer are not shown to "
            "differ. Each upright line on the right spans such a group; in the grey "
            "band: those not shown to differ from the best. The test takes the "
            "settings for independent, which pairs of models on one dataset are not "
            "quite."
        )
    return " ".join(part for part in parts if part)


def groups(mean: Mapping[str, float], difference: float) -> list[tuple[int, int]]:
    """First and last place, from the best, of each longest run of ranks so close.

    Runs of one strategy, and those inside another, are left out.

    >>> groups({"a": 1.0, "b": 2.0, "c": 3.5, "d": 9.0}, 2.0)
    [(0, 1), (1, 2)]
    """
    ranks = sorted(mean.values())
    found: list[tuple[int, int]] = []
    for first, best in enumerate(ranks):
        last = max(k for k, rank in enumerate(ranks) if rank - best < difference)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def draw_ranks(found: Ranks, references: Mapping[str, str]) -> Figure:
    """A row for each strategy, the best on top; groups as lines beside them."""
    labels = sorted(found.mean, key=lambda label: (found.mean[label], label))
    difference = found.critical_difference
    spans = [] if difference is None else groups(found.mean, difference)
    columns = _columns(spans)
    beside = 0.35 + 0.09 * (max(columns, default=0) + 1) if spans else 0.0
    inches, points = row_of(len(labels))
    size = (6.2 + beside, 1.2 + inches * len(labels))
    figure = Figure(figsize=size, layout="constrained")
    axes, side = figure.subplots(
        1, 2, sharey=True, width_ratios=(6.2, max(beside, 0.01))
    )
    for y, label in enumerate(labels):
        _dot(axes, y, label, found, references.get(label, ""))
    axes.set_yticks(
        range(len(labels)), [shorten(label) for label in labels], size=points
    )
    axes.set_ylim(len(labels) - 0.4, -0.6)
    best, worst = found.mean[labels[0]], found.mean[labels[-1]]
    margin = 0.04 * (worst - best) or 0.5
    right = max(best - margin, 0.5)  # there is no rank 0
    axes.set_xlim(worst + margin, right)  # turned round: right is better
    axes.set_xlabel(f"mean rank over {found.settings} settings")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    if difference is not None:
        _critical(axes, best, difference)
    for column, (first, last) in zip(columns, spans, strict=True):
        (line,) = side.plot([column] * 2, [first - 0.2, last + 0.2], color=INK, lw=1.8)
        tip(
            line,
            f"{labels[first]} to {labels[last]}: {last - first + 1} strategies whose "
            "mean ranks are closer than the critical difference",
        )
    side.axis("off")
    return figure


def _columns(spans: Sequence[tuple[int, int]]) -> list[int]:
    """The leftmost column in which each span touches no earlier one."""
    ends: list[int] = []
    columns = []
    for first, last in spans:
        free = [column for column, end in enumerate(ends) if end < first]
        column = free[0] if free else len(ends)
        ends[column : column + 1] = [last]
        columns.append(column)
    return columns


def _dot(axes: Axes, y: int, label: str, found: Ranks, reference: str) -> None:
    (mark,) = axes.plot(
        found.mean[label],
        y,
        "s" if reference == "kd" else "o",
        markeredgecolor=INK if reference else COLOURS[0],
        markerfacecolor=CLEAR if reference else COLOURS[0],
        markersize=6,
        zorder=3,
    )
    tip(
        mark,
        f"{label}: mean rank {found.mean[label]:.2f} of {len(found.mean)}, over "
        f"{found.settings} settings",
    )


def _critical(axes: Axes, best: float, difference: float) -> None:
    """The band of those not told from the best, and above it the difference."""
    left, right = axes.get_xlim()
    end = best + difference
    axes.axvspan(end, right, color=FAINT, alpha=0.18, linewidth=0, zorder=0)
    axes.set_xlim(max(left, end), right)
    height = axes.get_xaxis_transform()
    axes.plot(
        [best, end], [1.012] * 2, "|-", color=INK, transform=height, clip_on=False
    )
    axes.text(
        best + difference / 2,
        1.02,
        f"critical difference {difference:.2f}",
        transform=height,
        ha="center",
        va="bottom",
        fontsize=8,
    )


def _profiles(sections: Sequence[Section]) -> list[Plot]:
    """One for each unit that gains are counted in, over the sections of that unit."""
    by_unit: dict[str, list[Section]] = defaultdict(list)
    for section in sections:
        by_unit[section.headline.gain_unit].append(section)
    plots: list[Plot] = []
    for group in sorted(by_unit.values(), key=len, reverse=True):
        if len(group) < FEWEST_PROFILED:
            continue
        table = scores(group)
        if table.shape[1] < FEWEST_STRATEGIES:
            continue
        smallest = least(group[0], table.to_numpy().ravel().tolist())
        plots.append(_profile(group, stats.profile(table), smallest, len(plots)))
    return plots


def _profile(
    group: Sequence[Section], found: pd.DataFrame, smallest: float, number: int
) -> Plot:
    horizon = _horizon(found, smallest)
    unit = group[0].headline.gain_unit
    worst = float(found.index[-1])
    cut = f" Differences above {significant(horizon)} are cut off." * (worst > horizon)
    return Plot(
        kind="profile",
        stem="overall-profile" + (f"-{number + 1}" if number else ""),
        title="Performance profile" + (f" ({unit})" if number and unit else ""),
        alt=f"Performance profiles of {found.shape[1]} strategies over {len(group)} "
        "settings.",
        caption=f"How often a strategy comes how close: the share of the {len(group)} "
        "settings in which its mean headline is within so many "
        f"{unit or 'units'} of the best mean there (Dolan and More 2002, with "
        "differences in place of ratios), of the strategies that have a result in "
        "all of them. Higher is better; at 0: how often it is the best itself. Named: "
        "scratch, kd and those with the largest area below; all others in grey."
        f"{cut} Nothing is tested.",
        draw=partial(draw_profile, found, horizon, unit, _references(group)),
    )


def _horizon(found: pd.DataFrame, smallest: float) -> float:
    """Where the plot ends: beyond it only collapsed strategies are still rising."""
    away = [-_reach(found, label, 1.0) for label in found.columns]
    return min(float(found.index[-1]), -floor(away, smallest)) or smallest


def _reach(found: pd.DataFrame, label: str, share: float) -> float:
    """The smallest distance within which it is in this share of the settings."""
    return float(found.index[found[label] >= share - 1e-9][0])


def area(found: pd.DataFrame, label: str, horizon: float) -> float:
    """Mean of the profile from 0 to `horizon`."""
    ends = [min(float(tau), horizon) for tau in found.index] + [horizon]
    steps = zip(found[label], pairwise(ends), strict=True)
    return sum(float(share) * (end - start) for share, (start, end) in steps) / horizon


def draw_profile(
    found: pd.DataFrame, horizon: float, unit: str, references: Mapping[str, str]
) -> Figure:
    """Steps over the distance to the best; the named ones with colours and dashes."""
    ordered = sorted(found.columns, key=lambda one: -area(found, one, horizon))
    named = [label for label in ordered if label in references]
    named += [label for label in ordered if label not in references][:NAMED]
    figure = Figure(figsize=(6.6, 4.2), layout="constrained")
    axes = figure.subplots()
    looks = iter(zip(COLOURS * 2, DASHES * 2, strict=True))
    for label in sorted(ordered, key=lambda one: one in named):  # the named on top
        line = _steps(axes, found, label, horizon, unit)
        if references.get(label) == "scratch":
            line.set(color=INK, linestyle=(0, (4, 3)))
        elif label in named:
            colour, dash = next(looks)
            line.set(color=colour, linestyle=dash)
        if label in named:
            line.set(linewidth=1.7, label=shorten(label, 24))
    axes.set_xlim(0, 1.02 * horizon)
    axes.set_ylim(0, 102)
    axes.set_xlabel(f"distance to the best of a setting{f' ({unit})' if unit else ''}")
    axes.set_ylabel("share of settings (%)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
    return figure


def _steps(
    axes: Axes, found: pd.DataFrame, label: str, horizon: float, unit: str
) -> Line2D:
    taus = [*map(float, found.index), 1.02 * max(horizon, float(found.index[-1]))]
    shares = [100 * float(share) for share in found[label]]
    (line,) = axes.step(
        taus, [*shares, shares[-1]], where="post", color=FAINT, linewidth=0.7
    )
    of = f" {unit}" if unit else ""
    tip(
        line,
        f"{label}: the best, or equal to it, in {shares[0]:.0f}% of the settings; "
        f"within {significant(_reach(found, label, 0.5))}{of} of it in half of them, "
        f"{significant(_reach(found, label, 1.0))}{of} in all",
    )
    return line
