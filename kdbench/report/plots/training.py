"""Accuracy against what training costs: every strategy of every pair of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import ceil

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdbench.report import formats
from kdbench.report.analysis import standings
from kdbench.report.plots.accuracy import mean_of
from kdbench.report.plots.front import (
    FRONT,
    Mark,
    draw_front,
    draw_marks,
    foot,
    front,
    known_labels,
    legend,
    log_axis,
    sentence,
)
from kdbench.report.plots.labels import place_labels, told
from kdbench.report.plots.orientation import axis_title
from kdbench.report.plots.style import Plot, shorten
from kdbench.report.sections import Section
from kdbench.report.training_cost import relative

MANY = 8
"""How many of a front are named, beside their marks and in the caption."""
LISTED = 4
"""Up to how many panels so many are named; with more, the best of each alone."""


@dataclass(frozen=True)
class Panel:
    """The strategies of one pair whose times can be set against scratch's.

    `marks` by label; `front` are the labels on it, the cheapest first.
    """

    section: Section
    marks: dict[str, Mark]
    front: list[str]
    untimed: int


def training_plot(sections: Sequence[Section], stem: str, title: str) -> Plot | None:
    """One panel for each pair; None where no two strategies differ in their time."""
    panels = [panel for section in sections if (panel := _panel(section))]
    if not panels:
        return None
    many = sum(len(panel.marks) for panel in panels)
    return Plot(
        kind="tradeoff",
        stem=stem,
        title=title,
        alt=f"{panels[0].section.headline.title} against training time of {many} "
        f"trainings of {len(panels)} pairs; the tables hold the numbers.",
        caption=_caption(panels),
        draw=partial(draw_training, panels),
    )


def _panel(section: Section) -> Panel | None:
    kinds = known_labels(section)
    marks, untimed = {}, 0
    for standing in standings(section):
        if standing.quality is None or standing.compression:
            continue
        time = relative(section, standing.label, "train_s")
        if not time:
            untimed += 1
            continue
        marks[standing.label] = Mark(
            kinds.get(standing.label, "other"),
            time,
            mean_of(standing),
            f"{told(section, standing)}; {formats.ratio(time)} scratch's training time",
        )
    if len({mark.x for mark in marks.values()}) < 2:
        return None
    labels = list(marks)
    best = front([(mark.x, mark.y) for mark in marks.values()])
    return Panel(section, marks, [labels[place] for place in best], untimed)


def _caption(panels: Sequence[Panel]) -> str:
    section = panels[0].section
    parts = [
        f"Every mark is a strategy: its {section.headline.title}, mean over seeds, "
        "and its train time over that of scratch, paired by seed and within one "
        "machine; the data pass and the teacher are charged in full."
    ]
    feet = [foot([m.y for m in p.marks.values()], p.section) for p in panels]
    parts += [words.strip() for words in dict.fromkeys(feet) if words]
    if len(panels) == 1:
        parts.append(f"{FRONT}: {_listed(panels[0])}.")
    elif len(panels) <= LISTED:
        listed = [f"{p.section.pair}: {_listed(p)}" for p in panels]
        parts.append(f"A panel for each pair. {sentence(listed)}")
    else:
        parts.append(f"A panel for each pair. {FRONT}; its best is named.")
    untimed = sum(panel.untimed for panel in panels)
    if untimed:
        parts.append(f"Left out, without such a time: {untimed}.")
    return " ".join(parts)


def draw_training(panels: Sequence[Panel]) -> Figure:
    """Dots over a logarithmic axis; those on the front are named."""
    columns = min(len(panels), 2 if len(panels) < 5 else 3)
    rows = ceil(len(panels) / columns)
    size = (7.4, 4.6) if len(panels) == 1 else (8.6, 0.5 + min(3.4, 9 / rows) * rows)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    places = list(grid.flat)
    for axes in places[len(panels) :]:
        axes.remove()
    legend(
        figure,
        {m.kind for p in panels for m in p.marks.values()} | {"best"},
        "on the front",
    )
    drawn = [_draw(axes, panel) for axes, panel in zip(places, panels, strict=False)]
    for place, (axes, panel) in enumerate(zip(places, panels, strict=False)):
        if len(panels) > 1:
            axes.set_title(shorten(panel.section.pair, 36), size=9)
        if place % columns == 0:
            axes.set_ylabel(axis_title(panel.section))
        if place + columns < len(panels):
            axes.set_xlabel("")
    room = MANY if len(panels) <= LISTED else 1
    for axes, panel, dots in zip(places, panels, drawn, strict=False):
        named = [(panel.marks[label], label) for label in _named(panel, room)]
        labels = [(m.x, m.y, shorten(label, 22)) for m, label in named]
        place_labels(figure, axes, labels, dots)
    return figure


def _listed(panel: Panel) -> str:
    """Those that are named, the cheapest first, and how many more there are."""
    named = _named(panel, MANY)
    shown = [shorten(label) for label in panel.front if label in named]
    more = len(panel.front) - len(named)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _named(panel: Panel, room: int) -> list[str]:
    """The best of the front, and those that rise most above the one before."""
    ys = [panel.marks[label].y for label in panel.front]
    rises = dict(zip(panel.front[1:-1], (b - a for a, b in pairwise(ys)), strict=False))
    first = dict.fromkeys(panel.front[-1:])
    most = sorted(rises, key=lambda label: -rises[label])
    return [*(first | dict.fromkeys([*most, *panel.front]))][:room]


def _draw(axes: Axes, panel: Panel) -> list[tuple[float, float]]:
    """The marks of a panel, and what labels must not cover."""
    marks = list(panel.marks.values())
    xs = [mark.x for mark in marks]
    log_axis(axes, min(xs), max(xs), "training time (x scratch)")
    on = [panel.marks[label] for label in panel.front]
    raised = [Mark("best", m.x, m.y, m.words) for m in on]
    plain = [m for m in marks if m.kind != "other" or m not in on]
    draw_marks(axes, [*raised, *plain], panel.section)
    line = draw_front(axes, [(m.x, m.y) for m in on])
    return [*((mark.x, mark.y) for mark in marks), *line]
