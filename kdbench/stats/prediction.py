"""Where the value of one further seed lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kdbench.stats.seeds import interval

FEWEST = 3
"""Values that an interval takes: from two it would be too wide to say anything."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A prediction interval, mean ± half_width, for one more value; None for no such.

    `level` is the chance that it holds the value, `n` the number it is made of.
    """

    mean: float
    sd: float | None
    half_width: float | None
    n: int
    level: float

    def holds(self, value: float) -> bool | None:
        """Whether the value lies within, up to rounding; None where that is unknown."""
        if self.half_width is None:
            return None
        rounding = 1e-9 * max(abs(self.mean), abs(value))
        return abs(value - self.mean) <= self.half_width + rounding


def prediction(values: Sequence[float], level: float) -> Prediction:
    """Prediction interval for one further value from the same normal distribution.

    half_width = t(1 - (1 - level) / 2; n - 1) * sd * sqrt(1 + 1 / n), with the sample
    standard deviation sd (n - 1 in the denominator): the new value's own spread and
    that of the mean of n. Hahn & Meeker 1991, "Statistical intervals". There is none
    for fewer than 3 values, and where all of them are equal, which says nothing about
    their spread. Raises ValueError for no values, and for a level not within 0 and 1.

    >>> found = prediction([1.0, 2.0, 3.0], 0.95)
    >>> found.mean, round(found.half_width, 4)
    (2.0, 4.9683)
    """
    from scipy import special

    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1")
    known = interval(values)
    n, half_width = known.n, None
    if n >= FEWEST and known.sd:
        quantile = float(special.stdtrit(n - 1, 1 - (1 - level) / 2))
        half_width = quantile * known.sd * math.sqrt(1 + 1 / n)
    return Prediction(known.mean, known.sd, half_width, n, level)


def level_of_each(count: int, wrong: float) -> float:
    """The level of each of `count` intervals, so that any errs in `wrong` of all cases.

    1 - wrong / count, at most: Bonferroni's bound, which holds however the values
    depend on each other.

    >>> level_of_each(5, 0.01)
    0.998
    """
    return 1 - wrong / max(1, count)
