"""Fidelity to the teacher against accuracy.

Stanton et al. 2021, "Does knowledge distillation really work?", arXiv:2106.05945: a
student may be accurate without answering as its teacher does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdbench import stats
from kdbench.report import formats
from kdbench.report.analysis import standings
from kdbench.report.plots.labels import CLEAR, place_labels
from kdbench.report.plots.style import COLOURS, FAINT, INK, Plot, floor, shorten, tip
from kdbench.report.quality import measures
from kdbench.report.sections import Section
from kdbench.stats import Interval

NAMED = 3
"""How many of the highest in accuracy have their names beside them."""
LISTED = 4
"""How many of those beyond the frame are listed in its corner."""


@dataclass(frozen=True)
class Mark:
    """A strategy: its agreement with the teacher and its top-1, in percent.

    `role` is "scratch", "kd" or "".
    """

    label: str
    role: str
    agreement: Interval
    top1: Interval


def fidelity_plots(section: Section) -> list[Plot]:
    """Agreement with the teacher against top-1, of each head where it was measured."""
    plots = []
    for name, (shown, head) in measures(section).items():
        if shown.name != "agreement":
            continue
        quality = "_".join(part for part in ("top1", head) if part)
        marks = marks_of(section, name, quality)
        if not marks:
            continue
        of_head = f" ({head})" if head else ""
        plots.append(
            Plot(
                kind="fidelity",
                stem=f"{section.slug}-fidelity{suffix(head)}",
                title=f"Fidelity and accuracy{of_head}",
                alt=f"Top-1{of_head} against agreement with the teacher of "
                f"{len(marks)} strategies on {section.title}; the quality table holds "
                "the same numbers.",
                caption=_caption(section, marks, quality),
                draw=partial(draw_fidelity, section, marks, quality, of_head),
            )
        )
    return plots


def suffix(head: str) -> str:
    """What tells the file of a head's plot from those of the others."""
    return "-" + re.sub(r"[^a-z0-9]+", "-", head.lower()) if head else ""


def marks_of(section: Section, agreement: str, quality: str) -> list[Mark]:
    """The strategies with both measures, over the seeds that have both."""
    roles = {section.baseline(role): role for role in ("scratch", "kd")}
    marks = []
    for standing in standings(section):
        if standing.compression:
            continue
        x = section.values(standing.label, agreement)
        y = section.values(standing.label, quality)
        both = [seed for seed in x if seed in y]
        if both:
            marks.append(
                Mark(
                    label=standing.label,
                    role=roles.get(standing.label, ""),
                    agreement=stats.interval([x[seed] for seed in both]),
                    top1=stats.interval([y[seed] for seed in both]),
                )
            )
    return marks


def _caption(section: Section, marks: Sequence[Mark], quality: str) -> str:
    parts = [
        "Each mark: a strategy's mean over seeds. Across: test items for which student "
        "and teacher name the same class; up: top-1."
    ]
    if any(m.top1.sd is not None for m in marks):
        parts.append("Thin bars: one standard deviation over seeds, to either side.")
    if _teacher(section, quality) is not None:
        parts.append("Orange line: the teacher's own top-1.")
    if any(_beyond(frame(marks, _teacher(section, quality)), m) for m in marks):
        parts.append("In the corner: strategies that lie far beyond the frame.")
    parts.append(
        "Fidelity is not accuracy (Stanton et al. 2021): a student that agrees more "
        "need not be right more often."
    )
    return " ".join(parts)


def _teacher(section: Section, quality: str) -> float | None:
    return section.teacher.measures.get(quality) if section.teacher else None


@dataclass(frozen=True)
class Frame:
    """What part of the plane is drawn."""

    x: tuple[float, float]
    y: tuple[float, float]


def frame(marks: Sequence[Mark], teacher: float | None) -> Frame:
    """Room for the teacher, the means but for collapsed ones, and their bars."""
    own = [] if teacher is None else [teacher]
    left = floor(mark.agreement.mean for mark in marks)
    bottom = floor([*own, *(mark.top1.mean for mark in marks)])
    kept = [m for m in marks if m.agreement.mean >= left and m.top1.mean >= bottom]
    across = [value for mark in kept for value in _ends(mark.agreement)]
    up = [*own, *(value for mark in kept for value in _ends(mark.top1))]
    return Frame(_with_margin(across), _with_margin(up))


def _with_margin(values: Sequence[float]) -> tuple[float, float]:
    margin = 0.07 * (max(values) - min(values)) or 1.0
    return min(values) - margin, max(values) + margin


def _ends(found: Interval) -> tuple[float, float]:
    half = found.sd or 0.0
    return found.mean - half, found.mean + half


def _beyond(seen: Frame, mark: Mark) -> bool:
    return mark.agreement.mean < seen.x[0] or mark.top1.mean < seen.y[0]


def draw_fidelity(
    section: Section, marks: Sequence[Mark], quality: str, of_head: str
) -> Figure:
    """A scatter plot; scratch, kd and those that stand out are named."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(f"agreement with the teacher{of_head} (% of test items)")
    axes.set_ylabel(f"test top-1{of_head} (%)")
    teacher = _teacher(section, quality)
    seen = frame(marks, teacher)
    axes.set_xlim(*seen.x)
    axes.set_ylim(*seen.y)
    if teacher is not None:
        line = axes.axhline(teacher, color=COLOURS[1], linewidth=1.4, zorder=1)
        tip(line, f"teacher: top-1 {teacher:.{section.digits}f} %")
    inside = [mark for mark in marks if not _beyond(seen, mark)]
    for mark in inside:
        _draw(axes, mark, section.digits)
    _corner(axes, [m for m in marks if _beyond(seen, m)], section.digits)
    _legend(axes, inside, teacher is not None)
    named = _named(inside)
    labels = [(m.agreement.mean, m.top1.mean, shorten(m.label, 24)) for m in named]
    dots = [(m.agreement.mean, m.top1.mean) for m in inside]
    across = []
    if teacher is not None:
        step = (seen.x[1] - seen.x[0]) / 50
        across = [(seen.x[0] + k * step, teacher) for k in range(51)]
    place_labels(figure, axes, labels, dots, across)
    return figure


def _draw(axes: Axes, mark: Mark, digits: int) -> None:
    x, y = mark.agreement.mean, mark.top1.mean
    for across, up in ((_ends(mark.agreement), (y, y)), ((x, x), _ends(mark.top1))):
        axes.plot(across, up, color=FAINT, linewidth=0.8, alpha=0.6, zorder=1)
    marker, colour = LOOKS[mark.role]
    (drawn,) = axes.plot(
        x,
        y,
        marker,
        markeredgecolor=colour,
        markerfacecolor=colour if mark.role else CLEAR,
        markersize=7 if mark.role else 5.5,
        zorder=3 if mark.role else 2,
    )
    tip(
        drawn,
        f"{mark.label}: agreement {_spread(mark.agreement, digits)} %, "
        f"top-1 {_spread(mark.top1, digits)} %, n = {mark.top1.n}",
    )


def _spread(found: Interval, digits: int) -> str:
    """Mean and, in brackets, the standard deviation."""
    sd = "" if found.sd is None else f" (sd {found.sd:.{digits}f})"
    return f"{formats.fixed(found.mean, digits)}{sd}"


def _corner(axes: Axes, beyond: Sequence[Mark], digits: int) -> None:
    """The values of strategies that the frame does not hold."""
    if not beyond:
        return
    lines = ["beyond the frame (agreement, top-1):"]
    for mark in beyond[:LISTED]:
        x, y = mark.agreement.mean, mark.top1.mean
        lines.append(f"{shorten(mark.label, 24)} {x:.{digits}f}, {y:.{digits}f}")
    if len(beyond) > LISTED:
        lines.append(f"and {len(beyond) - LISTED} more")
    axes.text(
        0.99,
        0.02,
        "\n".join(lines),
        transform=axes.transAxes,
        ha="right",
        va="bottom",
        fontsize=7.5,
    )


LOOKS = {"scratch": ("o", INK), "kd": ("s", COLOURS[0]), "": ("o", COLOURS[0])}
"""Marker and colour by role."""


def _named(marks: Sequence[Mark]) -> list[Mark]:
    """Scratch, kd, the highest in accuracy, the ends in agreement."""
    by_top1 = sorted(marks, key=lambda mark: -mark.top1.mean)
    by_agreement = sorted(marks, key=lambda mark: mark.agreement.mean)
    chosen = [*by_top1[:NAMED], by_agreement[0], by_agreement[-1]]
    labels = {mark.label for mark in (*chosen, *(m for m in marks if m.role))}
    return [mark for mark in marks if mark.label in labels]


def _legend(axes: Axes, marks: Sequence[Mark], teacher: bool) -> None:
    if teacher:
        axes.plot([], [], color=COLOURS[1], label="teacher")
    for role in ("scratch", "kd", ""):
        if any(mark.role == role for mark in marks):
            marker, colour = LOOKS[role]
            axes.plot(
                [],
                [],
                marker,
                color=colour,
                markerfacecolor=colour if role else "none",
                label=role or "other strategies",
            )
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)
