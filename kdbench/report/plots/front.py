"""Marks of quality over a cost, and the Pareto front through them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from kdbench.report.plots.labels import CLEAR
from kdbench.report.plots.orientation import least, show_plain
from kdbench.report.plots.style import COLOURS, FAINT, INK, floor, tip
from kdbench.report.sections import Section

Point = tuple[float, float]

Colour = str | tuple[float, float, float, float]

LOOKS: dict[str, tuple[str, str, Colour, float, float]] = {
    "teacher": ("D", COLOURS[1], COLOURS[1], 7.0, 2.5),
    "best": ("^", COLOURS[2], COLOURS[2], 8.0, 3.0),
    "kd": ("s", COLOURS[0], CLEAR, 6.0, 4.0),
    "scratch": ("o", INK, CLEAR, 6.0, 4.0),
    "other": (".", FAINT, FAINT, 5.0, 2.0),
}
"""Marker, edge, face, size and layer of each kind, in the order of the legend."""

DASH = (0, (6, 2))
SHOWN = 8
"""How many members of a front a caption names."""


@dataclass(frozen=True)
class Mark:
    """A model by a strategy: its cost, its quality (higher is better), its words."""

    kind: str
    x: float
    y: float
    words: str


def known_labels(section: Section) -> dict[str, str]:
    """The labels of scratch and kd: label -> kind of mark."""
    found = {kind: section.baseline(kind) for kind in ("scratch", "kd")}
    return {label: kind for kind, label in found.items() if label}


def front(points: Sequence[Point]) -> list[int]:
    """Which of these (cost, quality) no other dominates, the cheapest first.

    One dominates another where it costs no more and is as good or better, and is not
    equal in both.

    >>> front([(2, 5), (1, 3), (3, 4), (2, 4)])
    [1, 0]
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    found: list[int] = []
    for place in order:
        last = points[found[-1]] if found else None
        if last is None or points[place][1] > last[1] or points[place] == last:
            found.append(place)
    return found


def sentence(names: Sequence[str]) -> str:
    """What the dashed line is, and who is on it, for a caption."""
    more = len(names) - SHOWN
    listed = "; ".join(names[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
    return f"{FRONT}: {listed}."


FRONT = (
    "Dashed: the Pareto front by means (not tested), what nothing shown beats at the "
    "same cost, or matches at less"
)


def draw_front(axes: Axes, points: Sequence[Point]) -> list[Point]:
    """The best that each cost buys: steps through the members, the cheapest first.

    They go on to the right end of the axis: call it when that is known. Returns points
    all along them, which labels must not cover.
    """
    xs, ys = [*(x for x, _ in points), axes.get_xlim()[1]], [y for _, y in points]
    axes.step(
        xs,
        [*ys, ys[-1]],
        where="post",
        color=INK,
        linewidth=0.9,
        linestyle=DASH,
        zorder=1.5,
    )
    shares = [share / 12 for share in range(1, 12)]
    level = [
        (x * (to / x) ** share, y)
        for x, to, y in zip(xs, xs[1:], ys, strict=False)
        for share in shares
    ]
    steep = [
        (x, y + (to - y) * share)
        for x, y, to in zip(xs[1:], ys, ys[1:], strict=False)
        for share in shares
    ]
    return level + steep


def log_axis(axes: Axes, low: float, high: float, title: str) -> None:
    """A logarithmic x-axis from `low` to `high`, with room and plain numbers."""
    axes.set_xscale("log")
    room = (high / low) ** 0.16
    axes.set_xlim(low / room, high * room)
    axes.set_xlabel(f"{title}, logarithmic")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _tick(x)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    span = high / low
    if span < 3:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.minorticks_off()
    else:
        subs = (1, 2, 3, 5, 7) if span < 12 else (1, 2, 5) if span < 1000 else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))


def _tick(x: float) -> str:
    for factor, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if x >= factor:
            return f"{x / factor:g}{prefix}"
    return f"{x:g}"


def limits(values: Sequence[float], section: Section) -> tuple[float, float]:
    """Where the y-axis ends: below, what would squeeze all others is left out."""
    lowest = floor(values, least(section, values))
    ends = [value for value in values if value >= lowest]
    room = max(ends) - min(ends) or least(section, values)
    return min(ends) - 0.1 * room, max(ends) + 0.14 * room


def foot(values: Sequence[float], section: Section) -> str:
    """What the caption says of values below the frame."""
    if min(values) >= limits(values, section)[0]:
        return ""
    return " An arrowhead at the foot stands for means far below."


def draw_marks(axes: Axes, marks: Sequence[Mark], section: Section) -> None:
    """Every mark with its words; an arrowhead at the foot for those far below."""
    bottom, top = limits([mark.y for mark in marks], section)
    axes.set_ylim(bottom, top)
    show_plain(axes.yaxis)
    below: dict[float, list[str]] = defaultdict(list)
    for mark in marks:
        if mark.y < bottom:
            below[mark.x].append(mark.words)
        else:
            line = _line(mark.kind, mark.x, mark.y)
            tip(line, mark.words)
            axes.add_artist(line)
    for x, words in below.items():
        line = Line2D([x], [bottom], color=FAINT, marker=7, markersize=6)
        line.set(linestyle="", clip_on=False)
        tip(line, "Below the frame: " + "; ".join(dict.fromkeys(words)))
        axes.add_artist(line)


def _line(kind: str, *point: float) -> Line2D:
    """One mark, or without a point that of the legend."""
    marker, edge, face, size, layer = LOOKS[kind]
    return Line2D(
        point[:1],
        point[1:],
        linestyle="",
        marker=marker,
        markersize=size,
        markeredgecolor=edge,
        markerfacecolor=face,
        zorder=layer,
    )


def legend(figure: Figure, kinds: set[str], best: str) -> None:
    """What the marks are: those of `kinds`; `best` says what a triangle is."""
    words = {"best": best, "other": "other strategies"}
    shown = [kind for kind in LOOKS if kind in kinds]
    figure.legend(
        [
            *(_line(kind) for kind in shown),
            Line2D([], [], color=INK, linewidth=0.9, linestyle=DASH),
        ],
        [*(words.get(kind, kind) for kind in shown), "Pareto front"],
        loc="outside upper left",
        ncols=6,
        columnspacing=1.2,
        handletextpad=0.5,
    )
