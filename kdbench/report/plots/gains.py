"""Forest plots of the paired differences to kd and to scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from kdbench.report.analysis import Standing, standings
from kdbench.report.formats import SIGNIFICANT, spread
from kdbench.report.plots.labels import CLEAR, chance
from kdbench.report.plots.orientation import least, row_of
from kdbench.report.plots.style import COLOURS, INK, Plot, floor, shorten, tip
from kdbench.report.sections import Section
from kdbench.stats import Paired

UNTESTED = (
    "Each difference is of one seed: its interval is unknown, and nothing was tested."
)


@dataclass(frozen=True)
class Panel:
    """The differences of all strategies to one of them: label -> (difference, p).

    p is Holm-adjusted, None where no test was possible.
    """

    reference: str
    gains: dict[str, tuple[Paired, float | None]]

    @property
    def tested(self) -> bool:
        return any(p is not None for _, p in self.gains.values())


def gain_plots(section: Section) -> list[Plot]:
    """Differences with intervals, where some pair of seeds is there."""
    found = [s for s in standings(section) if s.quality and not s.compression]
    panels = panels_of(section, found)
    if not panels:
        return []
    names = " and ".join(panel.reference for panel in panels)
    shown = len({label for panel in panels for label in panel.gains})
    return [
        Plot(
            kind="gains",
            stem=f"{section.slug}-gains",
            title=f"Gain over {names}",
            alt=f"Gains in {section.headline.title} of {shown} strategies over {names} "
            f"on {section.title}; the accuracy table holds the same numbers.",
            caption=_caption(section, panels),
            draw=partial(draw_gains, section, panels, found),
        )
    ]


def panels_of(section: Section, found: Sequence[Standing]) -> list[Panel]:
    """The differences to kd, then those to scratch, each where there are any."""
    over_kd = {s.label: (s.over_kd, s.p_kd) for s in found if s.over_kd}
    over_scratch = {
        s.label: (s.over_scratch, s.p_scratch) for s in found if s.over_scratch
    }
    panels = [
        Panel(section.baseline("kd") or "", over_kd),
        Panel(section.baseline("scratch") or "", over_scratch),
    ]
    return [panel for panel in panels if panel.gains]


def _caption(section: Section, panels: Sequence[Panel]) -> str:
    names = " (left) and to ".join(panel.reference for panel in panels)
    names += " (right)" if len(panels) > 1 else ""
    better = f"{'higher' if section.sign > 0 else 'lower'} {section.headline.title}"
    parts = [
        f"Dots: mean difference to {names} over the n seeds that both finished, paired "
        f"by seed; right of the dashed line is better ({better})."
    ]
    if any(g.half_width is not None for p in panels for g, _ in p.gains.values()):
        parts.append(
            "Bars: its 95% t-interval, not corrected for the number of strategies "
            "(none for one seed, or where the seeds do not differ; one that leaves the "
            "frame is cut; an arrow and its number stand for a mean far beyond it)."
        )
    if any(panel.tested for panel in panels):
        apart = ", each panel apart" if len(panels) > 1 else ""
        parts.append(
            f"Filled: paired t-test p < {SIGNIFICANT:g}, Holm-adjusted over the "
            f"strategies{apart}. Hollow: not significant, or not tested."
        )
    elif all(g.n == 1 for panel in panels for g, _ in panel.gains.values()):
        parts.append(UNTESTED)
    else:
        parts.append("Hollow: no test was possible.")
    return " ".join(parts)


def draw_gains(
    section: Section, panels: Sequence[Panel], found: Sequence[Standing]
) -> Figure:
    """One panel for each reference; rows by the first panel's gain, best on top."""
    rows = _rows(panels)
    width = 4.4 + 2.6 * (len(panels) - 1)
    inches, points = row_of(len(rows))
    figure = Figure(figsize=(width, 1.0 + inches * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    smallest = least(section, [s.quality.mean for s in found if s.quality])
    for place, panel in zip(axes, panels, strict=True):
        _panel(place, panel, rows, section, smallest)
    axes[0].set_yticks(
        range(len(rows)), [shorten(label) for label in rows], size=points
    )
    axes[0].set_ylim(-0.7, len(rows) - 0.3)
    return figure


def _rows(panels: Sequence[Panel]) -> list[str]:
    """From the bottom: by the difference to the first reference, itself at zero."""
    first = {label: gain.mean for label, (gain, _) in panels[0].gains.items()}
    labels = {label for panel in panels for label in panel.gains}
    for panel in panels[1:]:
        for label in labels - first.keys():
            own = panel.gains[label][0].mean
            zero = panel.gains.get(panels[0].reference)
            first[label] = own - zero[0].mean if zero else own
    return sorted(labels, key=lambda label: (first[label], label))


def _panel(
    axes: Axes, panel: Panel, rows: Sequence[str], section: Section, smallest: float
) -> None:
    gains = [gain for gain, _ in panel.gains.values()]
    low, high = _limits(gains, smallest)
    axes.axvline(0, color=INK, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
    shown = {y: panel.gains[one] for y, one in enumerate(rows) if one in panel.gains}
    for y, (gain, p) in shown.items():
        number = signed(gain.mean, section.digits)
        _mark(axes, y, gain, p, low, number, _words(section, rows[y], panel))
    bars = {
        y: (gain.mean - gain.half_width, gain.mean + gain.half_width)
        for y, (gain, _) in shown.items()
        if gain.half_width and gain.mean >= low
    }
    if bars:
        starts, ends = zip(*bars.values(), strict=True)
        axes.hlines(list(bars), starts, ends, color=COLOURS[0], linewidth=1.2)
    _count(axes, {y: gain.n for y, (gain, _) in shown.items()})
    unit = f" ({section.headline.gain_unit})" if section.headline.gain_unit else ""
    axes.set_xlabel(f"gain over {shorten(panel.reference, 24)}{unit}")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: signed(x)))
    axes.tick_params(axis="y", length=0, pad=8)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")


def signed(value: float, digits: int | None = None) -> str:
    """A number with its sign, but for zero.

    >>> signed(0.5), signed(-2.0, 1), signed(-0.01, 1)
    ('+0.5', '−2.0', '0.0')
    """
    text = f"{value:+g}" if digits is None else f"{value:+.{digits}f}"
    return (text if float(text) else text[1:]).replace("-", "\N{MINUS SIGN}")


def _limits(gains: Sequence[Paired], smallest: float) -> tuple[float, float]:
    """Zero and all means but collapsed ones; intervals up to their range."""
    means = [0.0, *(gain.mean for gain in gains)]
    lowest = floor(means, smallest)
    kept = [gain for gain in gains if gain.mean >= lowest]
    ends = [0.0, *(gain.mean for gain in kept)]
    room = max(max(ends) - min(ends), smallest)
    for gain in kept:
        half = min(gain.half_width or 0.0, room)
        ends += [gain.mean - half, gain.mean + half]
    margin = 0.05 * (max(ends) - min(ends) or smallest)
    numbers = 0.2 * (max(ends) - min(ends)) if len(kept) < len(gains) else 0.0
    return min(ends) - margin - numbers, max(ends) + margin


def _mark(
    axes: Axes,
    y: int,
    gain: Paired,
    p: float | None,
    low: float,
    number: str,
    words: str,
) -> None:
    """A dot; an arrow and its number for one far below."""
    cut = gain.mean < low
    if cut:
        axes.annotate(
            number,
            (low, y),
            (8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    (mark,) = axes.plot(
        low if cut else gain.mean,
        y,
        "<" if cut else "o",
        color=COLOURS[0],
        markeredgecolor=COLOURS[0],
        markerfacecolor=COLOURS[0] if p is not None and p < SIGNIFICANT else CLEAR,
        markersize=6,
        clip_on=not cut,
        zorder=3,
    )
    tip(mark, words)


def _count(axes: Axes, counts: dict[int, int]) -> None:
    """How many seeds: on top, and behind each row where they differ."""
    least_n, most_n = min(counts.values()), max(counts.values())
    axes.set_title("n" if least_n < most_n else f"n = {most_n}", loc="right", size=8)
    if least_n < most_n:
        beside = axes.get_yaxis_transform()
        for y, n in counts.items():
            axes.text(1.01, y, f"{n}", transform=beside, va="center", fontsize=7.5)


def _words(section: Section, label: str, panel: Panel) -> str:
    gain, p = panel.gains[label]
    unit = f" {section.headline.gain_unit}" if section.headline.gain_unit else ""
    value = spread(gain, section.digits, signed=True)
    tested = "not tested" if p is None else chance(p)
    return f"{label} over {panel.reference}: {value}{unit}, n = {gain.n}, {tested}"
