"""The headline of every strategy, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kdbench.report import formats
from kdbench.report.analysis import Standing, standings
from kdbench.report.plots.labels import CLEAR, told, told_teacher
from kdbench.report.plots.orientation import axis_title, least, row_of, show_plain
from kdbench.report.plots.style import (
    COLOURS,
    FAINT,
    INK,
    Plot,
    floor,
    shorten,
    tip,
)
from kdbench.report.sections import Section


def accuracy_plots(section: Section) -> list[Plot]:
    """Means with intervals, where a strategy has finished."""
    found = [s for s in standings(section) if s.quality]
    if not found:
        return []
    return [
        Plot(
            kind="accuracy",
            stem=f"{section.slug}-accuracy",
            title="Accuracy" if section.sign > 0 else "Error",
            alt=f"{section.headline.title} with intervals of {len(found)} strategies "
            f"on {section.title}; the accuracy table holds the same numbers.",
            caption=_caption(section, found),
            draw=partial(draw_accuracy, section, found),
        )
    ]


def _caption(section: Section, found: Sequence[Standing]) -> str:
    parts = ["Dots: mean over seeds."]
    if any(s.quality and s.quality.half_width is not None for s in found):
        parts.append("Bars: 95% t-interval; one that leaves the frame is cut.")
    if any(s.quality and s.quality.n == 1 for s in found):
        parts.append("No bar: one seed, its interval is unknown.")
    parts.append("Right is better.")
    labels = [s.label for s in found]
    hollow = [r for r in ("scratch", "kd") if section.baseline(r) in labels]
    if hollow:
        parts.append(f"Hollow: {' and '.join(hollow)}.")
    low = _limits(found, section)[0]
    if any(mean_of(s) < low for s in found):
        parts.append("An arrow and its number: a mean far beyond the frame.")
    if any(s.compression for s in found):
        parts.append("Grey, at the foot: compressed students, not strategies.")
    return " ".join(parts)


def draw_accuracy(section: Section, found: Sequence[Standing]) -> Figure:
    """Horizontal dots with intervals, the highest mean on top, compressed ones last."""
    rows = sorted(found, key=lambda s: (not s.compression, mean_of(s)))
    references = (section.baseline("scratch"), section.baseline("kd"))
    inches, points = row_of(len(rows))
    figure = Figure(figsize=(6.8, 1.2 + inches * len(rows)), layout="constrained")
    axes = figure.subplots()
    low, high = _limits(rows, section)
    for y, standing in enumerate(rows):
        hollow = standing.label in references
        mark = _dot(axes, y, standing, low, hollow, section.digits)
        tip(mark, told(section, standing))
    axes.set_yticks(range(len(rows)), [shorten(s.label) for s in rows], size=points)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel(axis_title(section, ", last epoch"))
    show_plain(axes.xaxis)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", left=False)
    axes.spines["left"].set_visible(False)
    _reference_lines(axes, section, found)
    axes.set_xlim(low, high)
    return figure


def mean_of(standing: Standing) -> float:
    """Higher is better: an error is drawn at its negative, and labelled plainly."""
    return standing.oriented if standing.quality else math.nan


def _reference_lines(axes: Axes, section: Section, found: Sequence[Standing]) -> None:
    digits, label = section.digits, section.baseline("scratch")
    scratch = next((s for s in found if s.label == label), None)
    if scratch is not None:
        mean = mean_of(scratch)
        axes.axvline(mean, color=INK, linestyle=(0, (4, 3)), linewidth=1, zorder=0)
        axes.plot(
            [],
            [],
            color=INK,
            linestyle=(0, (4, 3)),
            label=f"scratch {abs(mean):.{digits}f} {section.headline.unit}".rstrip(),
        )
    quality = section.teacher_quality
    if quality is not None:
        words = f"teacher {quality:.{digits}f} {section.headline.unit}".rstrip()
        at = section.sign * quality
        line = axes.axvline(at, color=COLOURS[1], linewidth=1.4, zorder=0)
        tip(line, told_teacher(section))
        axes.plot([], [], color=COLOURS[1], label=words)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)


def _dot(
    axes: Axes, y: int, standing: Standing, low: float, hollow: bool, digits: int
) -> Line2D:
    """Mean and interval; an arrow at the frame and the value for one far below."""
    colour = FAINT if standing.compression else INK if hollow else COLOURS[0]
    mean = mean_of(standing)
    half = (standing.quality and standing.quality.half_width) or 0.0
    if mean < low:
        (mark,) = axes.plot(low, y, "<", color=colour, clip_on=False)
        axes.annotate(
            formats.fixed(abs(mean), digits),
            (low, y),
            (8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
        return mark
    (mark,) = axes.plot(
        [mean - half, mean, mean + half],
        [y, y, y],
        marker="o",
        markevery=[1],
        markersize=5.5,
        color=colour,
        markeredgecolor=colour,
        markerfacecolor=CLEAR if hollow else colour,
        linewidth=1.4 if half else 0,
        solid_capstyle="butt",
    )
    return mark


def _limits(rows: Sequence[Standing], section: Section) -> tuple[float, float]:
    """The teacher and all means but collapsed ones; intervals up to their range."""
    teacher = section.teacher_quality
    means = [
        *map(mean_of, rows),
        *([] if teacher is None else [section.sign * teacher]),
    ]
    lowest = floor(means, least(section, means))
    ends = [mean for mean in means if mean >= lowest]
    room = max(max(ends) - min(ends), 0.5 * least(section, means))
    for standing in rows:
        half = min((standing.quality and standing.quality.half_width) or 0.0, room)
        if mean_of(standing) >= lowest:
            ends += [mean_of(standing) - half, mean_of(standing) + half]
    low, high = min(ends), max(ends)
    if section.headline.unit == "%":
        low, high = max(low, 0.0), min(high, 100.0)
    margin = 0.04 * (high - low or 1.0)
    return low - margin, high + margin
