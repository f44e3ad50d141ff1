"""Several strategies over several settings: ranks, Friedman's test, profiles.

The tests take the settings for independent. Settings that share a dataset or a teacher
are not quite, and then p-values are too small: say so beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

LEVEL = 0.05
# The chi-square approximation of Friedman's test is good for more than 10 settings
# (Demsar 2006, section 3.2.2). With fewer it errs on the safe side, except with three
# strategies: there its error rate at 0.05 comes to 0.069 for 4 settings and to as much
# as 0.058 for 5 or more, but with four it stays below (tests/stats/test_nulls.py). With
# 2 settings it finds next to nothing, whatever the data.
FEWEST_SETTINGS = 5
FEWEST_STRATEGIES = 4


@dataclass(frozen=True)
class Ranks:
    """Mean ranks over `settings` settings, 1 the best, and what tests say of them.

    `statistic` and `p_value` are Friedman's, or None where there are too few settings
    or strategies for a test. `critical_difference` is Nemenyi's at 0.05 and `pairs` the
    p-values of Nemenyi's test, strategies x strategies; both are None unless Friedman's
    test rejects at 0.05. Where any is None, `reason` says why in a sentence.
    """

    mean: Mapping[str, float]
    settings: int
    statistic: float | None = None
    p_value: float | None = None
    critical_difference: float | None = None
    pairs: pd.DataFrame | None = None
    reason: str = ""


def rank(scores: pd.DataFrame) -> Ranks:
    """Ranks of `scores` (settings x strategies, higher is better, no NaN).

    Strategies that tie in a setting share the mean of their ranks. Friedman's test
    (Friedman 1937, corrected for ties, chi-square with k - 1 degrees of freedom) asks
    whether all k strategies are alike; if it rejects, Nemenyi's tells pairs of them
    apart whose mean ranks over N settings differ by q sqrt(k (k + 1) / (6 N)) or more,
    with q the studentised range's upper 5% point for k and infinite degrees of freedom,
    over sqrt 2. It allows for all pairs. Demsar 2006, "Statistical comparisons of
    classifiers over multiple data sets", JMLR 7, section 3.2.2. A pair's result depends
    on which other strategies are ranked (Benavoli, Corani & Mangili 2016, JMLR 17).

    Raises ValueError for a score that is missing or not finite.
    """
    from scipy import stats

    values = _rounded(scores)
    settings, strategies = values.shape
    if not values.size:
        return Ranks({}, settings, reason="No strategy has a result in every setting.")
    ranks = stats.rankdata(-values, axis=1)
    names = [str(name) for name in scores.columns]
    mean = dict(zip(names, ranks.mean(axis=0).tolist(), strict=True))
    if reason := _too_few(settings, strategies):
        return Ranks(mean, settings, reason=reason)
    if (values == values[:, :1]).all():  # scipy divides by zero here
        reason = "The strategies are equal in every setting."
        return Ranks(mean, settings, 0.0, 1.0, reason=reason)
    found = stats.friedmanchisquare(*values.T)
    statistic, p_value = float(found.statistic), float(found.pvalue)
    if p_value >= LEVEL:
        reason = (
            "Friedman's test does not show that the strategies differ, so pairs of "
            "them are not tested."
        )
        return Ranks(mean, settings, statistic, p_value, reason=reason)
    pairs, difference = _nemenyi(values, names)
    return Ranks(mean, settings, statistic, p_value, difference, pairs)


def _nemenyi(
    values: NDArray[np.float64], names: list[str]
) -> tuple[pd.DataFrame, float]:
    """P-values of all pairs, and the critical difference of mean ranks."""
    import pandas as pd
    from scikit_posthocs import posthoc_nemenyi_friedman
    from scipy import stats

    settings, k = values.shape
    found = posthoc_nemenyi_friedman(values).to_numpy()
    q = float(stats.studentized_range.ppf(1 - LEVEL, k, math.inf)) / math.sqrt(2)
    difference = q * math.sqrt(k * (k + 1) / (6 * settings))
    return pd.DataFrame(found, index=names, columns=names), difference


def _too_few(settings: int, strategies: int) -> str:
    """Why there is no test, or nothing."""
    if settings < FEWEST_SETTINGS:
        plural = "" if settings == 1 else "s"
        return (
            f"Ranks over {settings} setting{plural} are shown without a test: "
            f"Friedman's test is not used for fewer than {FEWEST_SETTINGS}."
        )
    if strategies < FEWEST_STRATEGIES:
        of = "one strategy" if strategies == 1 else f"{strategies} strategies"
        return (
            f"Ranks of {of} are shown without a test: with fewer than "
            f"{FEWEST_STRATEGIES} Friedman's test finds more than it should, as its "
            "p-value is an approximation."
        )
    return ""


def profile(scores: pd.DataFrame) -> pd.DataFrame:
    """Performance profile of `scores` (settings x strategies, higher is better).

    Index: tau, a distance to the best of a setting, ascending from 0; columns: the
    strategies; values: the share of the settings in which the strategy is within tau
    of the best. Dolan & More 2002, "Benchmarking optimization software with performance
    profiles", equation 1, with the distance in place of the ratio, so that the settings
    must share a unit.

    Raises ValueError for no scores, or one that is missing or not finite.

    >>> import pandas as pd
    >>> profile(pd.DataFrame({"a": [70.0, 80.0], "b": [71.0, 80.0]})).to_dict()
    {'a': {0.0: 0.5, 1.0: 1.0}, 'b': {0.0: 1.0, 1.0: 1.0}}
    """
    import numpy as np
    import pandas as pd

    values = _rounded(scores)
    if not values.size:
        raise ValueError("a profile of no scores")
    away = values.max(axis=1, keepdims=True) - values
    away = away.round(_decimals(values))
    taus = np.unique(away)
    within = [
        np.searchsorted(np.sort(column), taus, side="right") / len(away)
        for column in away.T
    ]
    index = pd.Index(taus, name="tau")
    return pd.DataFrame(np.stack(within, axis=1), index=index, columns=scores.columns)


def _rounded(scores: pd.DataFrame) -> NDArray[np.float64]:
    """Scores to 12 digits of the largest, so that rounding does not break a tie."""
    import numpy as np

    values = scores.to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a score is missing or not finite")
    return values.round(_decimals(values))


def _decimals(values: NDArray[np.float64]) -> int:
    largest = float(abs(values).max(initial=0.0))
    return 12 - math.ceil(math.log10(largest)) if largest else 0
