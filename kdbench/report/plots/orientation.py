"""Axes on which better is always right or up, also where a lower number is better.

Errors are drawn at their negatives and labelled with the numbers themselves.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter

from kdbench.report.sections import Section


def axis_title(section: Section, when: str = "") -> str:
    """Such as "test top-1 (%)"."""
    headline = section.headline
    title = headline.title[:1].lower() + headline.title[1:]
    title = headline.title if headline.title.startswith("RMSE") else title
    unit = f" ({headline.unit})" if headline.unit else ""
    return f"test {title}{when}{unit}"


def show_plain(axis: Axis) -> None:
    """Label an axis of negatives with the numbers that they stand for."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):g}"))


def least(section: Section, values: Sequence[float]) -> float:
    """The smallest difference worth showing: a point, or 2% of a number."""
    if section.headline.unit == "%":
        return 1.0
    return 0.02 * abs(statistics.median(values)) or 1.0


def row_of(rows: int) -> tuple[float, float]:
    """Height of a row in inches and of its words in points, so that a page is enough.

    >>> row_of(10), row_of(50)
    ((0.25, 9.0), (0.156, 7.8))
    """
    inches = min(0.25, max(0.14, 7.8 / rows))
    return inches, min(9.0, 50 * inches)
