"""Words of marks: shown where one points at them, and labels that cover nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kdbench.report import formats
from kdbench.report.analysis import Standing
from kdbench.report.plots.style import INK
from kdbench.report.sections import Section, model_of
from kdbench.stats import Interval

Point = tuple[float, float]
Place = tuple[float, float, str]

NEAR = [
    (9, 0, "left"),
    (-9, 0, "right"),
    (0, 15, "center"),
    (0, -15, "center"),
    (9, 9, "left"),
    (-9, 9, "right"),
    (9, -9, "left"),
    (-9, -9, "right"),
]
PLACES: list[Place] = [
    (x * reach, y * reach, align)
    for reach in (1.0, 1.6, 2.4, 3.4, 4.6, 6.0, 8.0)
    for x, y, align in (
        *NEAR,
        *(
            (x * s, y * u, a)
            for x, y in ((18, 9), (5, 15))
            for s, u, a in (
                (1, 1, "left"),
                (-1, 1, "right"),
                (1, -1, "left"),
                (-1, -1, "right"),
            )
        ),
    )
]
"""Where a label may stand, in points from its mark, the nearest first."""

SHARES = np.linspace(0.15, 0.85, 8)
"""Where a line from a mark to its label is looked at."""

ALIGNED = {"left": 0.0, "right": 1.0, "center": 0.5}
"""Which share of its width a text has left of where it stands."""

FAR = 18
"""Points from its mark beyond which a label has a line to it."""
ROUNDS = 2
"""How often each label is placed, given the others."""

Array = NDArray[Any]


CLEAR = (1.0, 1.0, 1.0, 0.0)
"""The face of a hollow mark: unseen, but one can point at it, unlike at "none".

Give such a mark its `markeredgecolor` too.
"""


def told(section: Section, standing: Standing) -> str:
    """The words of a strategy's mark: its headline, and its gain where it has one.

    Such as "dkd: 97.3 ± 0.4 %, n = 5; +0.5 ± 0.3 points over kd (p = 0.020,
    Holm-corrected)". The gain is that over kd, else over scratch; without an interval
    the mean stands alone.
    """
    words = f"{standing.label}: {value(section, standing.quality)}"
    for gain, p, name in (
        (standing.over_kd, standing.p_kd, "kd"),
        (standing.over_scratch, standing.p_scratch, "scratch"),
    ):
        if gain is not None:
            size = formats.spread(gain, section.digits, signed=True)
            unit = section.headline.gain_unit
            words += f"; {' '.join(filter(None, (size, unit)))} over {name}"
            return words + (f" ({chance(p)})" if p is not None else "")
    return words


def value(section: Section, found: Interval | None) -> str:
    """A headline with interval, unit and seeds: "97.3 ± 0.4 %, n = 5"."""
    text = f"{formats.spread(found, section.digits)} {section.headline.unit}".rstrip()
    return f"{text}, n = {found.n if found else 0}"


def chance(p: float) -> str:
    """A Holm-adjusted p-value in words: "p = 0.31, n.s., Holm-adjusted"."""
    number = formats.p_value(p).replace(" n.s.", ", n.s.")
    sign = "" if number.startswith("<") else "= "
    return f"p {sign}{number}, Holm-adjusted"


def told_teacher(section: Section) -> str:
    """The words of the leading teacher's mark; "" where its headline is unknown."""
    quality, teacher = section.teacher_quality, section.teacher
    if quality is None or teacher is None:
        return ""
    number = f"{quality:.{section.digits}f} {section.headline.unit}".rstrip()
    return f"teacher {model_of(teacher)}: {number}, n = 1"


def place_labels(
    figure: Figure,
    axes: Axes,
    labels: Sequence[tuple[float, float, str]],
    dots: Sequence[Point],
    along: Sequence[Point] = (),
) -> None:
    """Put each (x, y, text) where it covers as few labels and dots as possible.

    `dots` are all marks, `along` points of lines to be kept free. Call it last, for all
    axes of the figure in turn: it needs the final limits, and settles the figure's
    layout. A label far from its mark, or as near to another, has a line to its own.
    """
    if not labels:
        return
    settle(figure)
    scale = figure.dpi / 72
    offsets = np.array([place[:2] for place in PLACES]) * scale
    far = np.hypot(*offsets.T) / scale
    here = axes.transData.transform([label[:2] for label in labels])
    marks = axes.transData.transform(np.array(dots, dtype=float).reshape(-1, 2))
    free = axes.transData.transform(np.array(along, dtype=float).reshape(-1, 2))
    frame = np.array(axes.get_window_extent().extents)
    boxes, lines, own, tied = [], [], [], []
    for at, (_, _, text) in zip(here, labels, strict=True):
        boxes.append(_boxes(at + offsets, _text_size(text, scale)))
        unclear = _nearer(boxes[-1], at, marks)
        tied.append((far > FAR) | unclear)
        lines.append(at + offsets[:, None] * SHARES[:, None] * tied[-1][:, None, None])
        own.append(
            2 * _inside(np.concatenate([marks, free]), boxes[-1])
            + 6 * _inside(here, boxes[-1])
            + 4 * unclear
            + 2 * _crossed(at, lines[-1], marks)
            + far / 8
            + 1000 * _leaves(boxes[-1], frame)
        )
    chosen: dict[int, int] = {}
    for _ in range(ROUNDS):
        for i in range(len(labels)):
            cost = own[i]
            for k, place in chosen.items():
                if k != i:
                    cost = (
                        cost
                        + 20 * _overlaps(boxes[i], boxes[k][place])
                        + 3 * _inside(lines[i], boxes[k][place])
                        + 3 * _inside(lines[k][place], boxes[i])
                    )
            chosen[i] = int(cost.argmin())
    for i, (x, y, text) in enumerate(labels):
        _annotate(axes, (x, y), text, PLACES[chosen[i]], bool(tied[i][chosen[i]]))


def settle(figure: Figure) -> None:
    """Find the layout of a figure and keep it."""
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)
        figure.set_layout_engine("none")


def _annotate(axes: Axes, point: Point, text: str, place: Place, tied: bool) -> None:
    dx, dy, align = place
    line = {
        "arrowstyle": "-",
        "color": INK,
        "linewidth": 0.5,
        "shrinkB": 2.5,
        "relpos": (ALIGNED[align], 0.5),
    }
    axes.annotate(
        text,
        point,
        xytext=(dx, dy),
        textcoords="offset points",
        ha=align,
        va="center",
        fontsize=8,
        linespacing=1.15,
        arrowprops=line if tied else None,
    )


def _text_size(text: str, scale: float) -> tuple[float, float]:
    """Generous width and height in pixels of 8-point text."""
    lines = text.split("\n")
    return max(map(len, lines)) * 5.2 * scale, len(lines) * 10.5 * scale


def _boxes(at: Array, size: tuple[float, float]) -> Array:
    """Left, bottom, right and top of the text at each of `PLACES`."""
    left = at[:, 0] - size[0] * np.array([ALIGNED[place[2]] for place in PLACES])
    bottom = at[:, 1] - size[1] / 2
    return np.stack([left, bottom, left + size[0], bottom + size[1]], axis=1)


def _overlaps(boxes: Array, other: Array) -> Array:
    """Whether each box overlaps the other one."""
    apart = (boxes[:, :2] >= other[2:]) | (boxes[:, 2:] <= other[:2])
    return np.asarray(~np.any(apart, axis=-1))


def _inside(points: Array, boxes: Array) -> Array:
    """How many of the points lie in each box: of all, or of those of its own row."""
    near = 4  # pixels: about half a mark
    low, high = boxes[..., None, :2] - near, boxes[..., None, 2:] + near
    return np.asarray(np.all((points > low) & (points < high), axis=-1).sum(-1))


def _nearer(boxes: Array, at: Array, marks: Array) -> Array:
    """Whether a mark elsewhere is as near to each box as its own mark, at `at`."""
    others = marks[np.hypot(*(marks - at).T) > 1]  # pixel: those at one place are one
    own = _away(boxes, at[None])[:, 0]
    return np.asarray(np.any(_away(boxes, others) <= own[:, None], axis=1))


def _crossed(at: Array, lines: Array, marks: Array) -> Array:
    """How many points of each line to a label, places x points, lie on other marks."""
    others = marks[np.hypot(*(marks - at).T) > 1]
    gaps = np.hypot(*np.moveaxis(lines[:, :, None] - others, -1, 0))
    on = np.any(gaps < 6, axis=2) & (np.hypot(*(lines - at).T).T > 6)
    return np.asarray(on.sum(1))


def _away(boxes: Array, points: Array) -> Array:
    """Pixels from each box to each point: boxes x points, 0 inside."""
    beside = np.maximum(boxes[:, None, :2] - points, points - boxes[:, None, 2:])
    return np.asarray(np.hypot(*np.moveaxis(np.maximum(beside, 0), -1, 0)))


def _leaves(boxes: Array, frame: Array) -> Array:
    outside = (boxes[:, :2] < frame[:2]) | (boxes[:, 2:] > frame[2:])
    return np.asarray(np.any(outside, axis=-1))
