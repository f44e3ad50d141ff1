"""The plots of one setting, accuracy and learning curves, and the list of all plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdbench.report.analysis import Standing, standings
from kdbench.report.document import Document, build
from kdbench.report.orientation import axis_title, least, show_plain
from kdbench.report.sections import Section
from kdbench.report.style import (
    COLOURS,
    DASHES,
    FAINT,
    INK,
    Plot,
    floor,
    save,
    shorten,
    spread_out,
)
from kdbench.report.tradeoff import tradeoff_plots
from kdbench.store import Results


def render(results: Results, folder: Path) -> Sequence[Path]:
    """Write `folder`/plots/<stem>.svg and .png for every plot."""
    document = build(results)
    target = folder / "plots"
    target.mkdir(parents=True, exist_ok=True)
    found = [p for part in document.parts for p in section_plots(part.section)]
    found += overall_plots(document)
    return [path for plot in found for path in save(plot, target)]


def section_plots(section: Section) -> list[Plot]:
    """Accuracy and learning curves of a section, where there is anything to draw."""
    found = [s for s in standings(section) if s.quality]
    what = section.headline.title
    plots = []
    if found:
        plots.append(
            Plot(
                stem=f"{section.slug}-accuracy",
                title="Accuracy" if section.sign > 0 else "Error",
                alt=f"{what} with intervals of {len(found)} strategies on "
                f"{section.title}; the accuracy table holds the same numbers.",
                caption="Dots: mean over seeds; bars: 95% t-interval (a bar that "
                "leaves the frame is cut; an arrow and its number stand for a mean far "
                "beyond it). Right is better. Hollow: scratch and kd.",
                draw=partial(draw_accuracy, section, found),
            )
        )
    found = [s for s in found if not s.compression]  # theirs are of another training
    if any(len(curve) > 1 for s in found if (curve := mean_curve(section, s.label))):
        plots.append(
            Plot(
                stem=f"{section.slug}-curves",
                title="Learning curves",
                alt=f"Test {what} by epoch of {len(found)} strategies on "
                f"{section.title}.",
                caption=f"Test {what} after each epoch, mean over seeds; up is better; "
                "on the right the last third, without what ends far below. Named: "
                "scratch, kd and the best means; all others in grey. Of a training "
                "longer than the recipe's, its last epochs.",
                draw=partial(draw_curves, section, found),
            )
        )
    return plots


def overall_plots(document: Document) -> list[Plot]:
    """Accuracy against latency and size, for each dataset and recipe."""
    return tradeoff_plots([part.section for part in document.parts])


# --- accuracy -------------------------------------------------------------------------


def draw_accuracy(section: Section, found: Sequence[Standing]) -> Figure:
    """Horizontal dots with intervals, the highest mean on top."""
    rows = sorted(found, key=_mean)
    references = (section.baseline("scratch"), section.baseline("kd"))
    figure = Figure(figsize=(6.8, 1.2 + 0.25 * len(rows)), layout="constrained")
    axes = figure.subplots()
    low, high = _limits(rows, section)
    for y, standing in enumerate(rows):
        _dot(axes, y, standing, low, standing.label in references)
    axes.set_yticks(range(len(rows)), [shorten(s.label) for s in rows])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel(axis_title(section, ", last epoch"))
    show_plain(axes.xaxis)
    axes.grid(visible=False, axis="y")
    _reference_lines(axes, section, found)
    axes.set_xlim(low, high)
    return figure


def _mean(standing: Standing) -> float:
    """Higher is better: an error is drawn at its negative, and labelled plainly."""
    return standing.oriented if standing.quality else math.nan


def _reference_lines(axes: Axes, section: Section, found: Sequence[Standing]) -> None:
    digits, label = section.digits, section.baseline("scratch")
    scratch = next((s for s in found if s.label == label), None)
    if scratch is not None:
        mean = _mean(scratch)
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
        axes.axvline(at, color=COLOURS[1], linewidth=1.4, zorder=0)
        axes.plot([], [], color=COLOURS[1], label=words)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)


def _dot(axes: Axes, y: int, standing: Standing, low: float, hollow: bool) -> None:
    """Mean and interval; an arrow at the frame and the value for one far below."""
    colour, mean = INK if hollow else COLOURS[0], _mean(standing)
    half = standing.quality.half_width if standing.quality else None
    if mean < low:
        axes.plot(low, y, "<", color=colour, clip_on=False)
        axes.annotate(
            f"{abs(mean):.4g}",
            (low, y),
            (8, 0),
            textcoords="offset points",
            va="center",
        )
        return
    axes.errorbar(
        mean,
        y,
        xerr=half or 0.0,
        fmt="o",
        markersize=5.5,
        color=colour,
        markerfacecolor="none" if hollow else colour,
        elinewidth=1.4,
        capsize=2.5 if half else 0,
    )


def _limits(rows: Sequence[Standing], section: Section) -> tuple[float, float]:
    """The teacher and all means but collapsed ones; intervals up to their range."""
    teacher = section.teacher_quality
    means = [*map(_mean, rows), *([] if teacher is None else [section.sign * teacher])]
    lowest = floor(means, least(section, means))
    ends = [mean for mean in means if mean >= lowest]
    room = max(max(ends) - min(ends), 0.5 * least(section, means))
    for standing in rows:
        half = min((standing.quality and standing.quality.half_width) or 0.0, room)
        if _mean(standing) >= lowest:
            ends += [_mean(standing) - half, _mean(standing) + half]
    low, high = min(ends), max(ends)
    if section.headline.unit == "%":
        low, high = max(low, 0.0), min(high, 100.0)
    margin = 0.04 * (high - low or 1.0)
    return low - margin, high + margin


# --- learning curves ------------------------------------------------------------------


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
    best = sorted(others, key=_mean, reverse=True)[:3]
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
    means = [_mean(s) for s in found]
    lowest = floor(means, least(section, means))
    seen = [curves[s.label] for s in found if _mean(s) >= lowest]
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
