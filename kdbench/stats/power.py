"""What a paired t-test over so many seeds can show.

The power of a two-sided paired t-test over n seeds is that of the noncentral t with
n - 1 degrees of freedom and noncentrality difference / sd * sqrt(n). Cohen 1988,
"Statistical power analysis for the behavioral sciences", chapter 2. Here `sd`, of the
paired differences, is taken as known; estimated from a few seeds it is rough (from 5
its 95% interval is 0.6 to 2.9 times the estimate), and so are these numbers.
"""

from __future__ import annotations

import math
from functools import lru_cache

MOST_SEEDS = 10_000
LEAST_LEVEL = 1e-4  # far below it, and with 2 seeds, scipy's noncentral F is NaN


def detectable(
    sd: float, n: int, power: float = 0.8, level: float = 0.05
) -> float | None:
    """Smallest true mean difference that is found with this power; None for n < 2.

    `sd` is that of the paired differences; two-sided test at `level`. 0 where sd is.
    Raises ValueError for an sd that is negative or not finite, and unless
    0.0001 <= level < power < 1.

    >>> round(detectable(0.3, 5), 2)
    0.5
    """
    _check(sd, power, level)
    if n < 2:
        return None
    return sd * _standardised(n, power, level)


def seeds_needed(
    sd: float, difference: float, power: float = 0.8, level: float = 0.05
) -> int | None:
    """Fewest seeds that find a true mean difference with this power.

    None where more than 10,000 would be needed (a difference of 0: always). 2, the
    fewest that can be tested, where sd is 0. Raises ValueError for an sd or a
    difference that is negative or not finite, and unless
    0.0001 <= level < power < 1.

    >>> seeds_needed(sd=0.3, difference=0.5)
    6
    """
    _check(sd, power, level)
    if not (difference >= 0 and math.isfinite(difference)):
        raise ValueError(f"not a difference to find: {difference}")

    def enough(n: int) -> bool:
        return sd * _standardised(n, power, level) <= difference

    if difference == 0 or not enough(MOST_SEEDS):
        return None
    too_few, found = 1, MOST_SEEDS
    while found - too_few > 1:
        middle = (too_few + found) // 2
        if enough(middle):
            found = middle
        else:
            too_few = middle
    return found


def _check(sd: float, power: float, level: float) -> None:
    if not (sd >= 0 and math.isfinite(sd)):
        raise ValueError(f"not a standard deviation: {sd}")
    if not LEAST_LEVEL <= level < power < 1:
        raise ValueError(f"not {LEAST_LEVEL} <= level {level} < power {power} < 1")


@lru_cache(maxsize=1024)
def _standardised(n: int, power: float, level: float) -> float:
    """The difference in units of sd that n seeds find with this power.

    The square of a noncentral t is a noncentral F: one tail in place of two, and
    scipy's is defined where its noncentral t is not (far below 0).
    """
    from scipy import optimize, special

    critical = float(special.stdtrit(n - 1, 1 - level / 2)) ** 2

    def missing(noncentrality: float) -> float:
        missed = special.ncfdtr(1, n - 1, noncentrality**2, critical)
        return power - 1 + float(missed)

    high = 1.0
    while missing(high) > 0:
        high *= 2
    return float(optimize.brentq(missing, 0.0, high)) / math.sqrt(n)
