"""Learning curves: all epochs, and the last third enlarged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdbench.report.analysis import Standing, standings
from kdbench.report.plots.accuracy import mean_of
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
            "on the right the last third, without what ends far below. Named: "
            "scratch, kd and the best means; all others in grey. Of a training "
            "longer than the recipe's, its last epochs.",
            draw=partial(draw_curves, section, found),
        )
    ]


def mean_curve(section: Section, label: str) -> list[float]:
    """Headline by epoch, higher being better: mean over the finished seeds.

    NaN where one has no value. Of a training longer than the recipe's the last epochs,
    so that all end at one place.
    """
    name, epochs = section.headline.name, section.recipe.epochs
    curves = [
        (r.curves.get(name) or [])[-epochs:] for r in section.finished(label).values()
    ]
    length = max((len(curve) for curve in curves), default=0)
    full = [curve for curve in curves if len(curve) == length]
    means = (_mean_or_nan(values) for values in zip(*full, strict=True))
    return [section.sign * mean for mean in means]


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
    named = named_strategies(section, found)
    figure = Figure(figsize=(8.6, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    for axes in (left, right):
        for label in sorted(curves, key=lambda one: one in named):
            _curve(axes, curves[label], label, section, named)
        axes.set_xlabel("epoch")
        show_plain(axes.yaxis)
    left.set_ylabel(axis_title(section))
    left.set_title("all epochs")
    right.set_title("last third")
    epochs = max(len(curve) for curve in curves.values())
    first = max(1, epochs - max(2, epochs // 3))
    right.set_xlim(first, epochs)
    means = [mean_of(s) for s in found]
    lowest = floor(means, least(section, means))
    seen = [curves[s.label] for s in found if mean_of(s) >= lowest]
    late = [v for c in seen for v in c[first - 1 :] if math.isfinite(v)]
    if late:
        margin = 0.06 * (max(late) - min(late) or 1.0)
        right.set_ylim(min(late) - margin, max(late) + margin)
    _end_labels(
        right, {label: curves[label] for label in named}, epochs, section, named
    )
    return figure


def _look(label: str, section: Section, named: list[str]) -> tuple[str, object]:
    """Colour and dash of a named strategy."""
    if label == section.baseline("scratch"):
        return INK, (0, (4, 3))
    first = 1 if section.baseline("scratch") in named else 0
    place = named.index(label) - first
    return COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)]


def _curve(
    axes: Axes, curve: list[float], label: str, section: Section, named: list[str]
) -> None:
    epochs = range(1, len(curve) + 1)
    if label in named:
        colour, dash = _look(label, section, named)
        axes.plot(epochs, curve, color=colour, linestyle=dash, linewidth=1.7)
    else:
        axes.plot(epochs, curve, color=FAINT, linewidth=0.7, alpha=0.7)


def _end_labels(
    axes: Axes,
    curves: dict[str, list[float]],
    epochs: int,
    section: Section,
    named: list[str],
) -> None:
    ends = {label: c[-1] for label, c in curves.items() if c and math.isfinite(c[-1])}
    low, high = axes.get_ylim()
    heights = spread_out(list(ends.values()), 0.06 * (high - low))
    for (label, end), height in zip(ends.items(), heights, strict=True):
        axes.annotate(
            shorten(label, 22),
            xy=(len(curves[label]), end),
            xytext=(epochs + 0.05 * (epochs - axes.get_xlim()[0]), height),
            color=_look(label, section, named)[0],
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.6},
        )
