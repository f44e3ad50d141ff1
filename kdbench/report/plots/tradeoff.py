"""Accuracy against latency and against size: teachers and students of a dataset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from kdbench import stats
from kdbench.report.analysis import standings
from kdbench.report.cost import Deployed, deployed, identity, machine_name
from kdbench.report.plots.labels import place_labels
from kdbench.report.plots.orientation import axis_title, least, show_plain
from kdbench.report.plots.style import COLOURS, FAINT, INK, Plot, floor, shorten
from kdbench.report.sections import Section, model_of


@dataclass(frozen=True)
class Column:
    """A model at its place on the x-axis: a teacher, or a student by strategy."""

    x: float
    model: str
    taught_by: str
    teacher: float | None = None
    means: tuple[tuple[str, float], ...] = ()
    scratch: float | None = None
    kd: float | None = None

    @property
    def values(self) -> list[float]:
        """Every dot of the column."""
        if self.teacher is not None:
            return [self.teacher]
        return [value for _, value in self.means]

    @property
    def best(self) -> tuple[str, float]:
        return max(self.means, key=lambda item: item[1])


AXES = {
    "latency_ms": ("latency", "latency at batch 1 (ms, median)"),
    "parameters": ("size", "parameters"),
    "size_bytes": ("size", "size (bytes)"),
}


def tradeoff_plots(sections: Sequence[Section]) -> list[Plot]:
    """One plot for each dataset and recipe and each axis that has values."""
    groups: dict[tuple[str, str, str], list[Section]] = defaultdict(list)
    for section in sections:
        dataset, _, recipe, protocol = section.setting
        groups[dataset, recipe, protocol].append(section)
    plots = []
    for (dataset, recipe, _), group in groups.items():
        several = sum(key[0] == dataset for key in groups) > 1
        stem = f"{dataset}-{recipe}" if several else dataset
        for measure in ("latency_ms", _size_of(group)):
            name, axis = AXES[measure]
            columns, where = _columns(group, measure)
            if len({column.x for column in columns}) < 2:
                continue
            plots.append(
                Plot(
                    kind="tradeoff",
                    stem=f"overall-{_slug(stem)}-{name}",
                    title=f"{dataset}: accuracy against {name}",
                    alt=f"{group[0].headline.title} against {name} of {len(columns)} "
                    f"models on {dataset}; the tables hold the numbers.",
                    caption="Each column of dots is one student: every dot a "
                    f"strategy's mean over seeds. Diamonds are teachers.{where}",
                    draw=partial(draw_tradeoff, columns, axis, group[0]),
                )
            )
    return plots


def _size_of(sections: Sequence[Section]) -> str:
    """Parameters, or bytes where a model such as a tree has none to count."""
    known = [e.measure("parameters") for s in sections for e in deployed(s)]
    return "parameters" if all(known) else "size_bytes"


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower())


def _columns(sections: Sequence[Section], measure: str) -> tuple[list[Column], str]:
    """The models with a value for the axis; speeds of the commonest machine only."""
    entries = [(section, entry) for section in sections for entry in deployed(section)]
    where = ""
    if measure == "latency_ms":
        names = [_machine(e) for _, e in entries if e.where]
        if not names:
            return [], ""
        name = max(sorted(set(names)), key=names.count)
        where = f" Latency on: {name}."
        entries = [(s, e) for s, e in entries if e.where and _machine(e) == name]
    found: dict[tuple[str, str], Column] = {}
    for section, entry in entries:
        x = (
            entry.measure(measure)
            if measure != "latency_ms"
            else entry.speed_of(measure)
        )
        if not x:
            continue
        column = _column(section, entry, x)
        pair = "" if entry.role == "teacher" else section.pair
        if column is not None:
            found.setdefault((entry.model, pair), column)
    return list(found.values()), where


def _machine(entry: Deployed) -> str:
    return machine_name(entry.where, threads=False) if entry.where else ""


def _column(section: Section, entry: Deployed, x: float) -> Column | None:
    if entry.role == "teacher":
        quality = entry.measure(section.headline.name)
        if quality is None:
            return None
        return Column(x, entry.model, "", teacher=section.sign * quality)
    means = {}
    for standing in standings(section):
        values = [
            record.measures.get(section.headline.name)
            for record in section.finished(standing.label).values()
            if identity(record) == identity(entry.record)
        ]
        known = [value for value in values if value is not None]
        if known:
            means[standing.label] = section.sign * stats.interval(known).mean
    if not means:
        return None
    return Column(
        x,
        entry.model,
        "+".join(map(model_of, section.teachers[:1])) or section.pair,
        means=tuple(means.items()),
        scratch=means.get(section.baseline("scratch") or ""),
        kd=means.get(section.baseline("kd") or ""),
    )


def draw_tradeoff(columns: Sequence[Column], axis: str, section: Section) -> Figure:
    """Dots over a logarithmic axis; each student's best strategy is named.

    The values are those of `section`'s headline, higher being better.
    """
    height = 4.6 if len(columns) < 9 else 6.0
    figure = Figure(figsize=(7.4, height), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    low, high = min(c.x for c in columns), max(c.x for c in columns)
    room = (high / low) ** 0.16
    axes.set_xlim(low / room, high * room)
    axes.set_xlabel(f"{axis}, logarithmic")
    axes.set_ylabel(axis_title(section))
    show_plain(axes.yaxis)
    _ticks(axes, high / low)
    placed = _side_by_side(columns, (high / low) ** 0.025)
    models = [column.model for column in columns]
    shown = [_draw(axes, x, column, models) for x, column in placed]
    dots = [(x, value) for x, column in placed for value in column.values]
    _legend(axes)
    values = [value for _, value in dots]
    lowest = floor(values, least(section, values))
    ends = [value for _, value in dots if value >= lowest]
    margin = 0.1 * (max(ends) - min(ends) or 1.0)
    axes.set_ylim(min(ends) - margin, max(ends) + margin)
    _count_lower(axes, placed)
    place_labels(figure, axes, shown, dots)
    return figure


def _count_lower(axes: Axes, placed: Sequence[tuple[float, Column]]) -> None:
    """Say at the foot of a column how many of its dots lie below the frame."""
    bottom = axes.get_ylim()[0]
    for x, column in placed:
        lower = sum(value < bottom for value in column.values)
        if lower:
            axes.annotate(
                f"{lower} lower",
                (x, bottom),
                (5, 5),
                textcoords="offset points",
                fontsize=8,
            )


def _ticks(axes: Axes, decades: float) -> None:
    subs = (1, 2, 3, 5, 7) if decades < 12 else (1, 2, 5) if decades < 1000 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _tick(x)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _tick(x: float) -> str:
    for factor, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if x >= factor:
            return f"{x / factor:g}{prefix}"
    return f"{x:g}"


def _side_by_side(columns: Sequence[Column], step: float) -> list[tuple[float, Column]]:
    """Students of one architecture share x: set them a little apart."""
    same: dict[float, list[Column]] = defaultdict(list)
    for column in columns:
        same[column.x].append(column)
    return [
        (x * step ** (place - (len(group) - 1) / 2), column)
        for x, group in same.items()
        for place, column in enumerate(group)
    ]


def _draw(
    axes: Axes, x: float, column: Column, models: list[str]
) -> tuple[float, float, str]:
    if column.teacher is not None:
        axes.plot(x, column.teacher, "D", color=COLOURS[1], markersize=7)
        return x, column.teacher, column.model
    values = column.values
    axes.plot([x, x], [min(values), max(values)], color=FAINT, linewidth=1, zorder=1)
    axes.plot([x] * len(values), values, ".", color=FAINT, markersize=5, zorder=2)
    label, best = column.best
    axes.plot(x, best, "^", color=COLOURS[2], markersize=8, zorder=3)
    for value, mark in ((column.scratch, "o"), (column.kd, "s")):
        if value is not None:
            colour = INK if mark == "o" else COLOURS[0]
            axes.plot(x, value, mark, color=colour, markerfacecolor="none", zorder=4)
    teacher = f" from {column.taught_by}" if models.count(column.model) > 1 else ""
    told = "" if column.model.endswith(label) else f"\n{shorten(label, 24)}"
    return x, best, f"{column.model}{teacher}{told}"


def _legend(axes: Axes) -> None:
    for mark, colour, fill, label in (
        ("D", COLOURS[1], COLOURS[1], "teacher"),
        ("^", COLOURS[2], COLOURS[2], "best mean (named)"),
        ("s", COLOURS[0], "none", "kd"),
        ("o", INK, "none", "scratch"),
        (".", FAINT, FAINT, "other strategies"),
    ):
        axes.plot(
            [], [], mark, color=colour, markerfacecolor=fill, markersize=6, label=label
        )
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=5, columnspacing=1)
