"""Labels beside marks of a plot, placed so that they cover nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdbench.report.plots.style import FAINT

Point = tuple[float, float]
Box = tuple[float, float, float, float]

OFFSETS = [
    (dx, dy, align)
    for reach in (9, 16, 25, 36, 50, 66)
    for dx, dy, align in (
        (reach, 0, "left"),
        (-reach, 0, "right"),
        (0, reach + 6, "center"),
        (0, -reach - 6, "center"),
        (reach, reach, "left"),
        (-reach, reach, "right"),
        (reach, -reach, "left"),
        (-reach, -reach, "right"),
    )
]
"""Where a label may stand, in points from its mark, the nearest first."""


def place_labels(
    figure: Figure,
    axes: Axes,
    labels: Sequence[tuple[float, float, str]],
    dots: Sequence[Point],
) -> None:
    """Put each (x, y, text) where it covers as few labels and dots as possible.

    Call it last: it needs the final limits of the axes.
    """
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    scale = figure.dpi / 72
    marks = [_pixel(axes, dot) for dot in dots]
    taken: list[Box] = []
    for x, y, text in labels:
        here, size = _pixel(axes, (x, y)), _text_size(text, scale)
        boxes = {
            (dx, dy, align): _box(
                (here[0] + dx * scale, here[1] + dy * scale), size, align
            )
            for dx, dy, align in OFFSETS
        }
        inside = {
            place: box for place, box in boxes.items() if _within(box, frame.extents)
        }
        place, box = min(
            (inside or boxes).items(),
            key=lambda item: _cost(item[0], item[1], taken, marks),
        )
        taken.append(box)
        _annotate(axes, (x, y), text, place)


def _pixel(axes: Axes, point: Point) -> Point:
    x, y = axes.transData.transform([point])[0]
    return float(x), float(y)


def _annotate(axes: Axes, point: Point, text: str, place: tuple[int, int, str]) -> None:
    dx, dy, align = place
    line = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.6}
    axes.annotate(
        text,
        point,
        xytext=(dx, dy),
        textcoords="offset points",
        ha=align,
        va="center",
        fontsize=8,
        linespacing=1.15,
        arrowprops=line if math.hypot(dx, dy) > 30 else None,
    )


def _within(box: Box, frame: Sequence[float]) -> bool:
    x0, y0, x1, y1 = frame
    return box[0] > x0 and box[1] > y0 and box[2] < x1 and box[3] < y1


def _text_size(text: str, scale: float) -> tuple[float, float]:
    """Generous width and height in pixels of 8-point text."""
    lines = text.split("\n")
    return max(map(len, lines)) * 5.2 * scale, len(lines) * 10.5 * scale


def _box(at: Point, size: Point, align: str) -> Box:
    (x, y), (width, height) = at, size
    left = {"left": x, "right": x - width, "center": x - width / 2}[align]
    return left, y - height / 2, left + width, y + height / 2


def _cost(
    place: tuple[int, int, str], box: Box, taken: Sequence[Box], marks: Sequence[Point]
) -> float:
    """Marks and labels covered, then the distance."""
    over = sum(
        box[0] < other[2]
        and other[0] < box[2]
        and box[1] < other[3]
        and other[1] < box[3]
        for other in taken
    )
    near = 4  # pixels: about half a mark
    hit = sum(
        box[0] - near < x < box[2] + near and box[1] - near < y < box[3] + near
        for x, y in marks
    )
    return 10 * over + 5 * hit + math.hypot(place[0], place[1]) / 20
