"""Accuracy against what it costs: latency, size, MACs, and training time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdbench import stats
from kdbench.report import formats
from kdbench.report.cost import Deployed, deployed, identity, machine_name
from kdbench.report.plots.front import (
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
from kdbench.report.plots.labels import place_labels, value
from kdbench.report.plots.orientation import axis_title
from kdbench.report.plots.style import FAINT, Plot, shorten
from kdbench.report.plots.training import training_plot
from kdbench.report.sections import Section, model_of
from kdbench.stats import Interval

CROWDED = 8
"""With more columns only those on the front are labelled with their strategy."""


@dataclass(frozen=True)
class Cost:
    """What a deployed model costs: in file names, in titles, on the axis, of a mark."""

    name: str
    title: str
    measure: str
    axis: str
    words: Callable[[float], str]

    def of(self, entry: Deployed) -> float | None:
        """Its value for a model; speed on the machine that the entry is about."""
        if self.measure == "latency_ms":
            return entry.speed_of(self.measure)
        return entry.measure(self.measure)


def _scaled(unit: str) -> Callable[[float], str]:
    return lambda x: f"{formats.scaled(x)} {unit}"


LATENCY = Cost(
    "latency",
    "latency",
    "latency_ms",
    "latency at batch 1 (ms, median)",
    lambda x: f"{formats.significant(x)} ms",
)
PARAMETERS = Cost(
    "size", "parameters", "parameters", "parameters", _scaled("parameters")
)
BYTES = Cost("size", "size", "size_bytes", "size (bytes)", _scaled("bytes"))
MACS = Cost("macs", "MACs", "macs", "MACs for one input", _scaled("MACs"))


@dataclass(frozen=True, eq=False)
class Dot:
    """A strategy's mean in a column, higher being better; "" is the teacher itself.

    `strategy` is its label without what compresses the column's model.
    """

    label: str
    strategy: str
    y: float
    words: str


@dataclass(frozen=True, eq=False)
class Column:
    """A deployed model at its place on the x-axis: a teacher, or a student.

    `taught_by` is there where the same model stands in another column too; `known` are
    the labels of scratch and kd: label -> kind of mark.
    """

    x: float
    model: str
    taught_by: str
    dots: tuple[Dot, ...]
    known: dict[str, str]

    @property
    def best(self) -> Dot:
        return max(self.dots, key=lambda dot: dot.y)

    def lines(self, dot: Dot) -> list[str]:
        """What a dot is: model, from which teacher if need be, by which strategy."""
        words = [self.model]
        if self.taught_by:
            words.append(f"from {self.taught_by}")
        if dot.label and not self.model.endswith(f" by {dot.label}"):
            words.append(f"by {shorten(dot.strategy, 24)}")
        return words

    def name(self, dot: Dot) -> str:
        """A dot in a sentence: "small by kd", "big (teacher)"."""
        return " ".join(self.lines(dot) + ([] if dot.label else ["(teacher)"]))


def tradeoff_plots(sections: Sequence[Section]) -> list[Plot]:
    """One plot for each dataset and recipe and each cost that differs.

    Those of a dataset with several recipes bear their first pair's name.
    """
    groups: dict[tuple[str, str, str], list[Section]] = defaultdict(list)
    for section in sections:
        dataset, _, recipe, protocol = section.setting
        groups[dataset, recipe, protocol].append(section)
    plots: list[Plot | None] = []
    for (dataset, *_), group in groups.items():
        several = sum(key[0] == dataset for key in groups) > 1
        stem = f"overall-{group[0].slug if several else _slug(dataset)}"
        name = formats.listed([s.title for s in group], most=1) if several else dataset
        what = "accuracy" if group[0].sign > 0 else "error"
        title = f"{name}: {what} against"
        plots += [
            _column_plot(group, cost, f"{stem}-{cost.name}", f"{title} {cost.title}")
            for cost in _costs(group)
        ]
        plots.append(training_plot(group, f"{stem}-training", f"{title} training time"))
    return [plot for plot in plots if plot is not None]


def _costs(sections: Sequence[Section]) -> Iterator[Cost]:
    """Latency, size, and MACs where all are known.

    Size is bytes where a model such as a tree has no parameters to count, or where one
    is compressed: its parameters may be as many as before.
    """
    entries = [entry for section in sections for entry in deployed(section)]
    yield LATENCY
    counted = all(e.measure("parameters") for e in entries)
    compressed = any(e.record.run.compression for e in entries)
    yield PARAMETERS if counted and not compressed else BYTES
    if all(MACS.of(entry) for entry in entries):
        yield MACS


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower())


def _column_plot(
    sections: Sequence[Section], cost: Cost, stem: str, title: str
) -> Plot | None:
    columns, note = _columns(sections, cost)
    if len({column.x for column in columns}) < 2:
        return None
    headline = sections[0].headline
    same = len({column.x for column in columns}) < len(columns)
    apart = " Models that cost the same stand on one vertical line." if same else ""
    places = [(column, dot) for column in columns for dot in column.dots]
    diamonds = any(not dot.label for _, dot in places)
    teachers = " Diamonds are teachers." if diamonds else ""
    on = [places[i] for i in front([(column.x, dot.y) for column, dot in places])]
    return Plot(
        kind="tradeoff",
        stem=stem,
        title=title,
        alt=f"{headline.title} against {cost.title} of {len(columns)} models; the "
        "tables hold the numbers.",
        caption="Each column of marks is one student: every mark a strategy's mean "
        f"over seeds.{foot([dot.y for _, dot in places], sections[0])}{apart}{teachers}"
        f" {sentence([column.name(dot) for column, dot in on])}{note}",
        draw=partial(draw_tradeoff, columns, [dot for _, dot in on], cost, sections[0]),
    )


def _columns(sections: Sequence[Section], cost: Cost) -> tuple[list[Column], str]:
    """The models with a value for the axis, and what the caption says of them."""
    entries = [(section, entry) for section in sections for entry in deployed(section)]
    note = ""
    if cost is LATENCY:
        entries, note = _on_one_machine(entries)
    found: dict[tuple[str, str], Column] = {}
    for section, entry in entries:
        x = cost.of(entry)
        pair = "" if entry.role == "teacher" else section.pair
        if not x or (entry.model, pair) in found:
            continue
        means = _teacher(section, entry) if not pair else _students(section, entry)
        if not means:
            continue
        taught_by = "+".join(map(model_of, section.teachers[:1])) or section.pair
        found[entry.model, pair] = Column(
            x,
            shorten(entry.model, 24),
            shorten(taught_by, 20) if pair else "",
            tuple(_dots(section, means, f"{entry.model}, {cost.words(x)}")),
            known_labels(section),
        )
    many = Counter(column.model for column in found.values())
    return [
        column if many[column.model] > 1 else replace(column, taught_by="")
        for column in found.values()
    ], note


def _on_one_machine(
    entries: Sequence[tuple[Section, Deployed]],
) -> tuple[list[tuple[Section, Deployed]], str]:
    """Those timed on the commonest machine, and which it is.

    None where only models that are timed in their own run have a latency, and others
    have none: speeds were not measured.
    """
    names = [_machine(entry) for _, entry in entries if entry.where]
    if not names:
        return [], ""
    name = max(sorted(set(names)), key=names.count)
    kept = [(s, e) for s, e in entries if e.where and _machine(e) == name]
    left = len({e.model for _, e in entries} - {e.model for _, e in kept})
    if left and all(entry.in_its_run for _, entry in kept):
        return [], ""
    note = f" Latency on: {name}."
    note += f" Left out, without a latency there: {left}." if left else ""
    if any(entry.in_its_run for _, entry in kept):
        note += (
            " Models named with their strategy were timed when their training ended, "
            "perhaps while others still trained: such times may be several times too "
            "long."
        )
    return kept, note


def _machine(entry: Deployed) -> str:
    return machine_name(entry.where, threads=False) if entry.where else ""


def _teacher(section: Section, entry: Deployed) -> dict[str, Interval]:
    quality = entry.measure(section.headline.name)
    return {} if quality is None else {"": stats.interval([quality])}


def _students(section: Section, entry: Deployed) -> dict[str, Interval]:
    """By label, over the runs that deploy this network."""
    found = {}
    for label in section.runs:
        values = [
            record.measures.get(section.headline.name)
            for record in section.finished(label).values()
            if identity(record) == identity(entry.record)
        ]
        known = [value for value in values if value is not None]
        if known:
            found[label] = stats.interval(known)
    return found


def _dots(section: Section, means: dict[str, Interval], model: str) -> Iterator[Dot]:
    for label, mean in means.items():
        words = f"{label or 'teacher'}: {value(section, mean)}; {model}"
        run = next(iter(section.runs[label].values())).run if label else None
        plain = label.removesuffix(f"/{run.compression}") if run else ""
        yield Dot(label, plain, section.sign * mean.mean, words)


def draw_tradeoff(
    columns: Sequence[Column], on: Sequence[Dot], cost: Cost, section: Section
) -> Figure:
    """Marks over a logarithmic axis; each student's best strategy is named.

    The values are those of `section`'s headline, higher being better; `on` are the
    dots on the front.
    """
    figure = Figure(
        figsize=(7.4, 4.6) if len(columns) <= CROWDED else (8.6, 6.6),
        layout="constrained",
    )
    axes = figure.subplots()
    low, high = min(c.x for c in columns), max(c.x for c in columns)
    log_axis(axes, low, high, cost.axis)
    axes.set_ylabel(axis_title(section))
    marks = [mark for column in columns for mark in _marks(column)]
    draw_marks(axes, marks, section)
    _stems(axes, columns)
    legend(figure, {mark.kind for mark in marks}, "best mean (named)")
    at = {dot: (column.x, dot.y) for column in columns for dot in column.dots}
    line = draw_front(axes, [at[dot] for dot in on])
    labels = [
        (c.x, c.best.y, _label(c, len(columns) <= CROWDED or c.best in on))
        for c in columns
    ]
    place_labels(figure, axes, labels, list(at.values()), line)
    return figure


def _marks(column: Column) -> Iterator[Mark]:
    x = column.x
    for dot in column.dots:
        best = dot is column.best
        if not dot.label:
            yield Mark("teacher", x, dot.y, dot.words)
        elif best:
            yield Mark("best", x, dot.y, dot.words)
        if dot.label in column.known:
            yield Mark(column.known[dot.label], x, dot.y, dot.words)
        elif dot.label and not best:
            yield Mark("other", x, dot.y, dot.words)


def _stems(axes: Axes, columns: Sequence[Column]) -> None:
    """A line through the marks of each column."""
    for column in columns:
        ys = [dot.y for dot in column.dots]
        if len(ys) > 1:
            axes.plot(
                [column.x] * 2, [min(ys), max(ys)], color=FAINT, linewidth=1, zorder=1
            )


def _label(column: Column, whole: bool) -> str:
    """Its name and best strategy, the strategy only if `whole`."""
    lines = column.lines(column.best)
    return "\n".join(
        line.removeprefix("by ") for line in lines if whole or line[:3] != "by "
    )
