"""Reliability diagrams.

Guo et al. 2017, "On calibration of modern neural networks", arXiv:1706.04599, figure 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdbench import stats
from kdbench.records import Record
from kdbench.report import formats
from kdbench.report.analysis import standings
from kdbench.report.plots.fidelity import suffix
from kdbench.report.plots.labels import CLEAR
from kdbench.report.plots.style import COLOURS, DASHES, INK, Plot, shorten, tip
from kdbench.report.sections import Section

FEW = 10
"""Bins of fewer items are drawn small and hollow: their accuracy is little known."""
LOOKS = (
    ("D", COLOURS[1], DASHES[0]),
    ("o", INK, DASHES[1]),
    ("s", COLOURS[0], DASHES[2]),
    ("^", COLOURS[2], DASHES[3]),
)
"""Marker, colour and dash of the teacher, scratch, kd and the best other strategy."""


@dataclass(frozen=True)
class Bin:
    """The items of one bin: mean confidence and accuracy in percent."""

    number: int
    items: float
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Curve:
    """The bins of a strategy that hold items, pooled over `seeds` runs.

    `look` is its place in `LOOKS`, `ece` the mean over these runs in percent, each run
    by itself.
    """

    label: str
    look: int
    seeds: int
    bins: tuple[Bin, ...]
    ece: float | None

    @property
    def items(self) -> float:
        return sum(one.items for one in self.bins)


def calibration_plots(section: Section) -> list[Plot]:
    """Confidence against accuracy, of each head for which runs hold the bins."""
    plots = []
    for head in _heads(section):
        curves = curves_of(section, head)
        of_head = f" ({head})" if head else ""
        names = ", ".join(curve.label for curve in curves)
        plots.append(
            Plot(
                kind="calibration",
                stem=f"{section.slug}-calibration{suffix(head)}",
                title=f"Calibration{of_head}",
                alt=f"Reliability diagram{of_head} of {names} on {section.title}; the "
                "quality table holds NLL and ECE of all strategies.",
                caption=_caption(curves),
                draw=partial(draw_calibration, curves, _count(section, head)),
            )
        )
    return plots


def _heads(section: Section) -> list[str]:
    """The heads of which a student has the bins; "" where there is only one."""
    start, end = "calibration_", "count"
    return sorted(
        {
            name.removeprefix(start).removesuffix(end).removesuffix("_")
            for record in section.records
            for name, values in record.lists.items()
            if name.startswith(start) and name.endswith(end) and any(values)
        }
    )


def _key(head: str, part: str) -> str:
    return "_".join(text for text in ("calibration", head, part) if text)


def _count(section: Section, head: str) -> int:
    """How many bins there are, of equal width."""
    return max(len(r.lists.get(_key(head, "count"), ())) for r in section.records)


def curves_of(section: Section, head: str) -> list[Curve]:
    """Teacher, scratch, kd and the best other strategy, each where it has bins."""
    references = (section.baseline("scratch"), section.baseline("kd"))
    teacher = [section.teacher] if section.teacher else []
    found = [_curve("teacher", 0, teacher, head)]
    for look, label in enumerate(references, start=1):
        records = section.finished(label).values() if label else ()
        found.append(_curve(label or "", look, list(records), head))
    others = (
        _curve(standing.label, 3, list(section.finished(standing.label).values()), head)
        for standing in standings(section)  # by their mean, the best first
        if standing.label not in references and not standing.compression
    )
    found.append(next((curve for curve in others if curve), None))
    return [curve for curve in found if curve]


def _curve(label: str, look: int, records: Sequence[Record], head: str) -> Curve | None:
    """The bins of these runs together; None where there are none."""
    own = [record for record in records if any(_bins(record, head))]
    if not own:
        return None
    pooled: dict[int, list[Bin]] = {}
    for record in own:
        for one in _bins(record, head):
            pooled.setdefault(one.number, []).append(one)
    name = "_".join(text for text in ("ece", head) if text)
    values = [record.measures.get(name) for record in own]
    known = [value for value in values if value is not None]
    return Curve(
        label=label,
        look=look,
        seeds=len(own),
        bins=tuple(_pooled(pooled[number]) for number in sorted(pooled)),
        ece=stats.interval(known).mean if known else None,
    )


def _bins(record: Record, head: str) -> Iterator[Bin]:
    """The bins of a run that hold items."""
    parts = ("count", "confidence", "accuracy")
    lists = [record.lists.get(_key(head, part), []) for part in parts]
    for number, (items, confidence, accuracy) in enumerate(zip(*lists, strict=False)):
        if items and confidence is not None and accuracy is not None:
            yield Bin(number, items, confidence, accuracy)


def _pooled(bins: Sequence[Bin]) -> Bin:
    items = sum(one.items for one in bins)
    return Bin(
        bins[0].number,
        items,
        sum(one.items * one.confidence for one in bins) / items,
        sum(one.items * one.accuracy for one in bins) / items,
    )


def _caption(curves: Sequence[Curve]) -> str:
    several = any(curve.seeds > 1 for curve in curves)
    parts = [
        "Each mark: the test items in one bin of the confidence (the probability of "
        "the class named)" + (", of all seeds together" if several else "") + "; "
        "across their mean confidence, up how many of them are right. On the diagonal "
        "confidence can be believed; below it the model is too sure, above it not "
        f"sure enough. Empty bins are not drawn, those of fewer than {FEW} items small "
        "and hollow. Lower panel: the share of the items in each bin. ECE: over the "
        "same bins" + (", mean over seeds of each run's own." if several else "."),
    ]
    if any(curve.look == 3 for curve in curves):
        best = next(curve.label for curve in curves if curve.look == 3)
        parts.append(
            f"{best}: the best mean of the other strategies that have such bins."
        )
    return " ".join(parts)


def draw_calibration(curves: Sequence[Curve], count: int) -> Figure:
    """Accuracy over confidence, and below it the share of the items in each bin."""
    figure = Figure(figsize=(5.6, 6.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    diagonal = {"color": INK, "linewidth": 0.8, "alpha": 0.5, "zorder": 0}
    upper.plot([0, 100], [0, 100], **diagonal)
    for curve in curves:
        _reliability(upper, curve)
        _shares(lower, curve, count)
    upper.set_ylabel("accuracy in the bin (%)")
    upper.set_xlim(-2, 102)
    upper.set_ylim(-2, 102)
    lower.set_ylim(bottom=0)
    lower.set_ylabel("items (%)")
    lower.set_xlabel("confidence (%)")
    upper.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    return figure


def _reliability(axes: Axes, curve: Curve) -> None:
    marker, colour, dash = LOOKS[curve.look]
    across = [one.confidence for one in curve.bins]
    up = [one.accuracy for one in curve.bins]
    axes.plot(across, up, color=colour, linestyle=dash, linewidth=1.1)
    for one in curve.bins:
        few = one.items < FEW
        (mark,) = axes.plot(
            one.confidence,
            one.accuracy,
            marker,
            markeredgecolor=colour,
            markersize=3 if few else 5.5,
            markerfacecolor=CLEAR if few else colour,
        )
        tip(mark, _words(curve, one))
    ece = "" if curve.ece is None else f", ECE {curve.ece:.1f} %"
    axes.plot(
        [],
        [],
        marker=marker,
        color=colour,
        linestyle=dash,
        linewidth=1.1,
        markersize=5.5,
        label=f"{shorten(curve.label, 24)}{ece}",
    )


def _words(curve: Curve, one: Bin) -> str:
    pooled = f" of {curve.seeds} seeds" if curve.seeds > 1 else ""
    share = 100 * one.items / curve.items
    return (
        f"{curve.label}: confidence {one.confidence:.1f} %, accuracy "
        f"{one.accuracy:.1f} %, {formats.plural(round(one.items), 'item')}{pooled} "
        f"({share:.1f} %)"
    )


def _shares(axes: Axes, curve: Curve, count: int) -> None:
    """Steps as wide as the bins."""
    _, colour, dash = LOOKS[curve.look]
    shares = [0.0] * count
    for one in curve.bins:
        shares[one.number] = 100 * one.items / curve.items
    edges = [100 * k / count for k in range(count + 1)]
    axes.stairs(shares, edges, color=colour, linestyle=dash, linewidth=1.1)
