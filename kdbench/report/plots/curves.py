"""Learning curves with bands: all epochs, and the last third enlarged."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kdbench import stats
from kdbench.report.analysis import Standing, standings
from kdbench.report.plots.accuracy import mean_of
from kdbench.report.plots.labels import told
from kdbench.report.plots.orientation import axis_title, least, show_plain
from kdbench.report.plots.style import (
    COLOURS,
    DASHES,
    FAINT,
    INK,
    Plot,
    floor,
    shorten,
    spread_out,
    tip,
)
from kdbench.report.sections import Section


def curve_plots(section: Section) -> list[Plot]:
    """Learning curves of a section, where there are any."""
    found = [s for s in standings(section) if s.quality]
    found = [s for s in found if not s.compression]  # theirs are of another training
    what = section.headline.title
    if not any(len(mean_curve(section, s.label)) > 1 for s in found):
        return []
    return [
        Plot(
            kind="curves",
            stem=f"{section.slug}-curves",
            title="Learning curves",
            alt=f"Test {what} by epoch of {len(found)} strategies on {section.title}.",
            caption=f"Test {what} after each epoch, mean over seeds; up is better; "
            "on the right the last epochs enlarged. What ends far below is left out of "
            "the frame. Named: scratch, kd and the best means; all others in grey. "
            f"{_bands(section, named_strategies(section, found))} Of a training longer "
            "than the recipe's, its last epochs.",
            draw=partial(draw_curves, section, found),
        )
    ]


def _bands(section: Section, named: Sequence[str]) -> str:
    """What the caption says of the bands."""
    if any(band(section, label) for label in named):
        return (
            "Bands: 95% t-interval over seeds of each epoch by itself, of the named "
            f"ones with two seeds or more{_cut(section)}; one that is mostly wider "
            "than a panel is high is left out of it."
        )
    return "No bands: with one seed an interval is unknown."


def _cut(section: Section) -> str:
    return ", cut at 0 and 100%" if section.headline.unit == "%" else ""


def mean_curve(section: Section, label: str) -> list[float]:
    """Headline by epoch, higher being better: mean over the finished seeds.

    NaN where one has no value. Of a training longer than the recipe's the last epochs,
    so that all end at one place.
    """
    means = map(_mean_or_nan, _by_epoch(section, label))
    return [section.sign * mean for mean in means]


def band(section: Section, label: str) -> list[tuple[float, float]]:
    """Lower and upper end of the 95% t-interval about each value of `mean_curve`.

    NaN where that is; empty for fewer than two seeds.
    """
    ends = []
    for values in _by_epoch(section, label):
        known = [section.sign * value for value in values if value is not None]
        if len(values) < 2:
            return []
        found = stats.interval(known) if len(known) == len(values) else None
        if found is None or found.half_width is None:
            ends.append((math.nan, math.nan))
        else:
            ends.append((found.mean - found.half_width, found.mean + found.half_width))
    return ends


def _by_epoch(section: Section, label: str) -> list[tuple[float | None, ...]]:
    """The values of all seeds by epoch; of the longest curves, should they differ."""
    name, epochs = section.headline.name, section.recipe.epochs
    curves = [
        (r.curves.get(name) or [])[-epochs:] for r in section.finished(label).values()
    ]
    length = max((len(curve) for curve in curves), default=0)
    return list(zip(*(c for c in curves if len(c) == length), strict=True))


def _mean_or_nan(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else math.nan


def named_strategies(section: Section, found: Sequence[Standing]) -> list[str]:
    """Scratch, kd and the three highest means of the others."""
    references = [section.baseline("scratch"), section.baseline("kd")]
    labels = [s.label for s in found]
    others = [s for s in found if s.label not in references and not s.compression]
    best = sorted(others, key=mean_of, reverse=True)[:3]
    return [r for r in references if r in labels] + [s.label for s in best]


def draw_curves(section: Section, found: Sequence[Standing]) -> Figure:
    """All epochs on the left, the last third enlarged and labelled on the right."""
    curves = {s.label: mean_curve(section, s.label) for s in found}
    named = [label for label in named_strategies(section, found) if curves[label]]
    epochs = max(len(curve) for curve in curves.values())
    late = max(1, epochs - max(2, epochs // 3))
    means = [mean_of(s) for s in found]
    lowest = floor(means, least(section, means))
    seen = [curves[s.label] for s in found if mean_of(s) >= lowest]
    figure = Figure(figsize=(8.6, 3.9), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=(1, 1.15))
    for axes, first in zip(panels, (1, late), strict=True):
        _limit(axes, [value for curve in seen for value in curve[first - 1 :]])
        for standing in sorted(found, key=lambda s: s.label in named):
            label = standing.label
            if not any(map(math.isfinite, curves[label][first - 1 :])):
                continue
            line = _curve(axes, curves[label], first, _look(label, section, named))
            tip(line, told(section, standing))
            if label in named:
                _shade(axes, section, label, first, _look(label, section, named))
        axes.set_xlim(first, epochs)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("epoch")
        show_plain(axes.yaxis)
    left, right = panels
    left.set_ylabel(axis_title(section))
    left.set_title("all epochs")
    right.set_title(f"epochs {late} to {epochs}")
    _end_labels(right, {label: curves[label] for label in named}, section, named)
    return figure


def _look(label: str, section: Section, named: list[str]) -> tuple[str, Any, float]:
    """Colour, dash and width: a named strategy's own, thin grey for all others."""
    if label not in named:
        return FAINT, "-", 0.7
    if label == section.baseline("scratch"):
        return INK, (0, (4, 3)), 1.7
    first = 1 if section.baseline("scratch") in named else 0
    place = named.index(label) - first
    return COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)], 1.7


def _curve(
    axes: Axes, curve: list[float], first: int, look: tuple[str, Any, float]
) -> Line2D:
    colour, dash, width = look
    values = curve[first - 1 :]
    (line,) = axes.plot(
        range(first, first + len(values)),
        values,
        color=colour,
        linestyle=dash,
        linewidth=width,
    )
    return line


def _shade(
    axes: Axes,
    section: Section,
    label: str,
    first: int,
    look: tuple[str, Any, float],
) -> None:
    """The band with thin edges, unless it is mostly wider than the panel is high."""
    ends = band(section, label)[first - 1 :]
    widths = [high - low for low, high in ends if math.isfinite(high - low)]
    bottom, top = axes.get_ylim()
    if not widths or statistics.median(widths) > top - bottom:
        return
    colour, dash, _ = look
    epochs = range(first, first + len(ends))
    edges = np.array(ends).T
    if section.headline.unit == "%":
        edges = edges.clip(min(0, 100 * section.sign), max(0, 100 * section.sign))
    axes.fill_between(epochs, *edges, color=colour, alpha=0.06, linewidth=0, zorder=1)
    for edge in edges:
        axes.plot(epochs, edge, color=colour, linestyle=dash, linewidth=0.6, alpha=0.6)


def _limit(axes: Axes, values: Sequence[float]) -> None:
    """All means with a margin; bands that reach further are cut."""
    known = [value for value in values if math.isfinite(value)]
    if known:
        margin = 0.06 * (max(known) - min(known) or 1.0)
        axes.set_ylim(min(known) - margin, max(known) + margin)


def _end_labels(
    axes: Axes, curves: dict[str, list[float]], section: Section, named: list[str]
) -> None:
    """Names at the right, each at the end of a line that looks like its curve."""
    ends = {label: c[-1] for label, c in curves.items() if c and math.isfinite(c[-1])}
    low, high = axes.get_ylim()
    first, last = axes.get_xlim()
    beside = last + 0.1 * (last - first)
    heights = spread_out(list(ends.values()), 0.06 * (high - low))
    for (label, end), height in zip(ends.items(), heights, strict=True):
        colour, dash, width = _look(label, section, named)
        axes.plot(
            [len(curves[label]), beside],
            [end, height],
            color=colour,
            linestyle=dash,
            linewidth=0.7 * width,
            clip_on=False,
        )
        axes.text(
            beside,
            height,
            f" {shorten(label, 22)}",
            va="center",
        )
