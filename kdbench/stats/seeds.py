"""Over repeated trainings: intervals, paired tests, the correction for many."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

K = TypeVar("K", bound=Hashable)

EXACT = 20  # the most differences whose signs are flipped in every way
FLIPS = 100_000


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
    """Two-sided sign-flip permutation test of a zero mean; None for n < 2.

    The share of the 2^n choices of signs whose mean is at least as far from 0 as the
    one observed; all of them up to n = 20, beyond that 100,000 drawn with a fixed seed,
    the observed one counted in. Assumes differences that are symmetric about 0 if there
    is no effect. Fisher 1935, "The design of experiments", section 21. It cannot go
    below `least_p`. Raises ValueError for a value that is not finite.

    >>> sign_flip([1.0, 2.0, 3.0])
    0.25
    """
    import numpy as np

    values = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a difference is missing or not finite")
    if len(values) < 2:
        return None
    size = float(np.abs(values).sum())
    if len(values) <= EXACT:
        sums = values[:1]  # its own sign stays: the other half mirrors this one
        for value in values[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return float((np.abs(sums) >= abs(values.sum()) - 1e-9 * size).mean())
    signs = np.random.default_rng(0).integers(0, 2, (FLIPS, len(values)), np.int8)
    sums = (2 * signs - 1) @ values
    far = int((np.abs(sums) >= abs(values.sum()) - 1e-9 * size).sum())
    return (far + 1) / (FLIPS + 1)


def least_p(n: int) -> float | None:
    """The smallest p that `sign_flip` can give for n differences; None for n < 2.

    2 / 2^n up to n = 20: 0.0625 for 5 seeds, so that at least 6 are needed before the
    test can be significant at 0.05 at all.

    >>> least_p(5)
    0.0625
    """
    if n < 2:
        return None
    return 2.0 ** (1 - n) if n <= EXACT else 1 / (FLIPS + 1)


def holm(p_values: Mapping[K, float | None]) -> dict[K, float | None]:
    """Holm's step-down adjusted p-values, in the order given.

    For p(1) <= ... <= p(m): adjusted p(i) = max over j <= i of
    min(1, (m - j + 1) * p(j)). Holm 1979, "A simple sequentially rejective multiple
    test procedure". None (no test was possible) stays None and is not counted in m.

    >>> holm({"a": 0.01, "b": 0.04, "c": None})
    {'a': 0.02, 'b': 0.04, 'c': None}
    """
    tested = [(p, name) for name, p in p_values.items() if p is not None]
    adjusted: dict[K, float | None] = dict.fromkeys(p_values)
    highest = 0.0
    for passed, (p, name) in enumerate(sorted(tested, key=lambda found: found[0])):
        highest = max(highest, min(1.0, (len(tested) - passed) * p))
        adjusted[name] = highest
    return adjusted


def not_worse(
    values: Mapping[str, Mapping[int, float]], level: float = 0.05
) -> set[str]:
    """The best by mean and all that are not significantly worse than it.

    `values` is strategy -> seed -> value, higher is better. Every pair of strategies is
    compared by the paired t-test over the seeds that both have; p-values are
    Holm-adjusted over all pairs, not only those with the best: which one is best is
    read from the same values, and the correction for all pairs holds whichever it is.
    So the chance that any of several equal best strategies is left out is at most
    `level`. A strategy that no test against the best was possible for (fewer than 2
    common seeds, or equal differences) is left out.
    """
    means = {
        name: math.fsum(seeds.values()) / len(seeds)
        for name, seeds in values.items()
        if seeds
    }
    if not means:
        return set()
    best = max(means, key=lambda name: means[name])
    tests = {}
    for a, b in combinations(means, 2):
        common = sorted(values[a].keys() & values[b].keys())
        if common:
            found = paired(
                [values[a][s] for s in common], [values[b][s] for s in common]
            )
            tests[a, b] = found
    adjusted = holm({pair: found.p_value for pair, found in tests.items()})
    kept = {best}
    for (a, b), found in tests.items():
        p = adjusted[a, b]
        if best in (a, b) and p is not None:
            lead = found.mean if a == best else -found.mean
            if p >= level or lead <= 0:
                kept |= {a, b}
    return kept
