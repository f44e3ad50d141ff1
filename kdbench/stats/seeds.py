"""Over repeated trainings: intervals, paired tests, the correction for many."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its t-interval: mean ± half_width. `sd` and it need n >= 2."""

    mean: float
    sd: float | None
    half_width: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Paired:
    """The mean of a - b with its t-interval and the paired t-test's p-value.

    `sd` is that of the differences (n - 1 in the denominator).
    """

    mean: float
    half_width: float | None
    p_value: float | None
    n: int
    sd: float | None = None


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean and t-interval of independent values.

    half_width = t(1 - (1 - level) / 2; n - 1) * sd / sqrt(n), with the sample standard
    deviation sd (n - 1 in the denominator). Student 1908, "The probable error of a
    mean". For n = 1 both are None. Raises ValueError for no values.

    >>> found = interval([1.0, 2.0, 3.0])
    >>> found.mean, found.sd, round(found.half_width, 4)
    (2.0, 1.0, 2.4841)
    """
    from scipy import special

    n = len(values)
    if n == 0:
        raise ValueError("interval of no values")
    if n == 1:
        return Interval(values[0], None, None, 1)
    if min(values) == max(values):  # exactly, without rounding in the mean
        return Interval(values[0], 0.0, 0.0, n)
    mean = math.fsum(values) / n
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    quantile = float(special.stdtrit(n - 1, 1 - (1 - level) / 2))
    return Interval(mean, sd, quantile * sd / math.sqrt(n), n)


def paired(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Paired:
    """Paired t-test of a[i] - b[i] (two-sided) with the interval of the mean.

    t = mean(d) / (sd(d) / sqrt(n)), n - 1 degrees of freedom. Student 1908, section IX.
    For n < 2 there is no interval and no p-value. Where all differences are equal (up
    to rounding) the t-test is not defined: p is 1 if they are zero, None otherwise.
    Raises ValueError for unequal lengths or no values.

    >>> paired([3.0, 4.0, 6.0], [1.0, 1.0, 2.0]).mean
    3.0
    """
    from scipy import special

    if len(a) != len(b):
        raise ValueError(f"paired values differ in number: {len(a)} and {len(b)}")
    found = interval([x - y for x, y in zip(a, b, strict=True)], level)
    if found.sd is None or found.half_width is None:
        return Paired(found.mean, None, None, found.n)
    rounding = 1e-9 * max(1e-300, *(abs(v) for v in (*a, *b)))
    if found.sd <= rounding:
        p = 1.0 if abs(found.mean) <= rounding else None
        return Paired(found.mean, 0.0, p, found.n, found.sd)
    t = found.mean / (found.sd / math.sqrt(found.n))
    p = 2 * float(special.stdtr(found.n - 1, -abs(t)))
    return Paired(found.mean, found.half_width, p, found.n, found.sd)


def sign_flip(differences: Sequence[float]) -> float | None:
    """Two-sided sign-flip permutation test of a zero mean; None for n < 2."""
    raise NotImplementedError


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Holm's step-down adjusted p-values, in the order given.

    For p(1) <= ... <= p(m): adjusted p(i) = max over j <= i of
    min(1, (m - j + 1) * p(j)). Holm 1979, "A simple sequentially rejective multiple
    test procedure". None (no test was possible) stays None and is not counted in m.

    >>> holm({"a": 0.01, "b": 0.04, "c": None})
    {'a': 0.02, 'b': 0.04, 'c': None}
    """
    tested = sorted((p, name) for name, p in p_values.items() if p is not None)
    adjusted: dict[str, float | None] = dict.fromkeys(p_values)
    highest = 0.0
    for passed, (p, name) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - passed) * p))
        adjusted[name] = highest
    return adjusted
