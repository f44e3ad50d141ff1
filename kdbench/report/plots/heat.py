"""A heat map, strategies by settings."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from kdbench.report.analysis import standings
from kdbench.report.formats import SIGNIFICANT, spread
from kdbench.report.plots.gains import signed
from kdbench.report.plots.labels import CLEAR, chance
from kdbench.report.plots.orientation import row_of
from kdbench.report.plots.style import FAINT, Plot, shorten, tip
from kdbench.report.sections import Section
from kdbench.stats import Paired

COLOURS = "PuOr"
"""Brewer's diverging map, orange below zero, purple above: safe for colour-blind."""
DARK, LIGHT = "#010101", "#ffffff"
"""Ink on a cell; not the page's, which turns light on a dark page, nor plain black,
which SVG files leave out as the default."""
FEWEST_SETTINGS = 2


@dataclass(frozen=True)
class Heat:
    """Gains over kd: `cells` holds (label, place of the section) -> (gain, adjusted p).

    `labels` run from the highest median gain down; all sections count in one unit.
    """

    sections: tuple[Section, ...]
    labels: tuple[str, ...]
    cells: dict[tuple[str, int], tuple[Paired, float | None]]

    @property
    def unit(self) -> str:
        return self.sections[0].headline.gain_unit

    @property
    def limit(self) -> float:
        """Where the colours end: nine gains in ten are no farther from zero."""
        sizes = sorted(abs(gain.mean) for gain, _ in self.cells.values())
        return sizes[math.ceil(0.9 * len(sizes)) - 1] or 1.0


def heat_plots(sections: Sequence[Section]) -> list[Plot]:
    """Gains over kd of every strategy in every setting, from two settings on.

    One plot for each unit that gains are counted in.
    """
    found = [heat for heat in heats(sections) if len(heat.sections) >= FEWEST_SETTINGS]
    found.sort(key=lambda heat: -len(heat.sections))
    return [_plot(heat, sections, number) for number, heat in enumerate(found)]


def heats(sections: Sequence[Section]) -> list[Heat]:
    """The gains of each unit, over the sections that have any over kd."""
    by_unit: dict[str, list[tuple[Section, dict[str, tuple[Paired, float | None]]]]]
    by_unit = defaultdict(list)
    for section in sections:
        gains = {
            s.label: (s.over_kd, s.p_kd)
            for s in standings(section)
            if s.over_kd and not s.compression
        }
        if gains:
            by_unit[section.headline.gain_unit].append((section, gains))
    found = []
    for group in by_unit.values():
        means: dict[str, list[float]] = defaultdict(list)
        for _, gains in group:
            for label, (gain, _) in gains.items():
                means[label].append(gain.mean)
        middle = {label: statistics.median(values) for label, values in means.items()}
        found.append(
            Heat(
                sections=tuple(section for section, _ in group),
                labels=tuple(sorted(middle, key=lambda one: (-middle[one], one))),
                cells={
                    (label, place): gains[label]
                    for place, (_, gains) in enumerate(group)
                    for label in gains
                },
            )
        )
    return found


def _plot(heat: Heat, sections: Sequence[Section], number: int) -> Plot:
    unit = f" ({heat.unit})" if heat.unit else ""
    count = len(heat.sections)
    return Plot(
        kind="heat",
        stem="overall-heat" + (f"-{number + 1}" if number else ""),
        title=f"Gain over kd by setting{unit}",
        alt=f"Gains over kd{unit} of {len(heat.labels)} strategies in {count} settings;"
        " the accuracy tables hold the same numbers.",
        caption=_caption(heat, sections, unit),
        draw=partial(draw_heat, heat),
    )


def _caption(heat: Heat, sections: Sequence[Section], unit: str) -> str:
    parts = [
        f"Each cell: the mean gain over kd{unit}, paired by seed; + is better than kd. "
        "Rows by their median gain over the settings that they have.",
        f"Colours end at ±{heat.limit:.3g}: a gain farther from zero has the last "
        "colour and its own number.",
    ]
    if any(p is not None for _, p in heat.cells.values()):
        parts.append(
            f"*: paired t-test over seeds p < {SIGNIFICANT:g}, Holm-adjusted over the "
            "strategies of the setting (not over the settings)."
        )
    else:
        parts.append("No difference could be tested: there is one seed of each.")
    if len(heat.cells) < len(heat.labels) * len(heat.sections):
        parts.append("Hatched: no seed that both it and kd finished.")
    missing = len(sections) - len(heat.sections)
    if missing:
        parts.append(
            f"Of the {len(sections)} settings {missing} are left out: they have no "
            "gain over kd, or count it in another unit."
        )
    return " ".join(parts)


def setting_names(sections: Sequence[Section]) -> list[str]:
    """Short titles that differ: without the dataset where all share it."""
    shared = {section.dataset for section in sections}
    names = []
    for section in sections:
        name = section.title
        if len(shared) == 1:
            name = name.removeprefix(f"{section.dataset} / ")
        names.append(shorten(name, 44))
    many, seen = Counter(names), Counter[str]()
    for place, name in enumerate(names):
        if many[name] > 1:
            seen[name] += 1
            names[place] = f"{name} ({seen[name]})"
    return names


def draw_heat(heat: Heat) -> Figure:
    """A cell for each strategy and setting, with its number; settings on top."""
    texts = {key: _text(heat, key) for key in heat.cells}
    wide = max(0.5, 0.075 * max(map(len, texts.values())))  # inches: 7.5-point digits
    names = [textwrap.fill(name, 22) for name in setting_names(heat.sections)]
    inches, points = row_of(len(heat.labels))
    size = (2.6 + wide * len(names), 1.9 + inches * len(heat.labels))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    scale, colours = Normalize(-heat.limit, heat.limit), colormaps[COLOURS]
    for y, label in enumerate(heat.labels):
        for x in range(len(heat.sections)):
            square = Rectangle((x - 0.5, y - 0.5), 1, 1, linewidth=0)
            tip(square, _words(heat, label, x))
            axes.add_patch(square)
            if (label, x) not in heat.cells:
                square.set(facecolor=CLEAR, edgecolor=FAINT, hatch="////")
                continue
            gain, _ = heat.cells[label, x]
            colour = colours(scale(gain.mean))
            square.set_facecolor(colour)
            text = axes.text(x, y, texts[label, x], color=ink(colour), size=7.5)
            text.set(ha="center", va="center")
            text.set_in_layout(False)  # it lies inside the axes: no need to measure it
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(heat.labels) - 0.5, -0.5)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="left", fontsize=8)
    for name in axes.get_xticklabels():
        name.set_rotation_mode("anchor")
    rows = [shorten(label) for label in heat.labels]
    axes.set_yticks(range(len(rows)), rows, size=points)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    _colour_bar(figure, axes, heat, scale)
    return figure


def _text(heat: Heat, key: tuple[str, int]) -> str:
    gain, p = heat.cells[key]
    star = "*" if p is not None and p < SIGNIFICANT else ""
    return signed(gain.mean, heat.sections[key[1]].digits) + star


def _words(heat: Heat, label: str, place: int) -> str:
    section = heat.sections[place]
    if (label, place) not in heat.cells:
        return f"{label}, {section.title}: no gain over kd"
    gain, p = heat.cells[label, place]
    unit = f" {heat.unit}" if heat.unit else ""
    value = spread(gain, section.digits, signed=True)
    tested = "not tested" if p is None else chance(p)
    return f"{label}, {section.title}: {value}{unit} over kd, n = {gain.n}, {tested}"


def ink(colour: tuple[float, float, float, float]) -> str:
    """Dark or light, whichever has more contrast on it: 4.5 at least (WCAG 2.2)."""
    return DARK if luminance(colour) > 0.18 else LIGHT


def luminance(colour: tuple[float, float, float, float]) -> float:
    """Relative luminance, WCAG 2.2."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _colour_bar(figure: Figure, axes: Axes, heat: Heat, scale: Normalize) -> None:
    unit = f" ({heat.unit})" if heat.unit else ""
    bar = figure.colorbar(
        ScalarMappable(scale, COLOURS),
        ax=axes,
        location="bottom",
        extend="both",
        aspect=40,
        shrink=0.8,
        pad=0.01,
        format=FuncFormatter(lambda x, _: signed(x)),
        label=f"gain over kd{unit}",
    )
    bar.outline.set_visible(False)
