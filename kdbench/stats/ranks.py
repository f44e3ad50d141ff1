"""Several strategies over several settings: ranks, Friedman's test, profiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Ranks:
    """Mean ranks over `settings` settings, 1 the best, and what tests say of them.

    `p_value` is Friedman's; `critical_difference` Nemenyi's at 0.05; `pairs` the
    p-values of Nemenyi's test, strategies x strategies. Where there are too few
    settings or strategies for a test they are None and `reason` says why in a sentence.
    """

    mean: Mapping[str, float]
    settings: int
    statistic: float | None = None
    p_value: float | None = None
    critical_difference: float | None = None
    pairs: pd.DataFrame | None = None
    reason: str = ""


def rank(scores: pd.DataFrame) -> Ranks:
    """Ranks of `scores` (settings x strategies, higher is better, no NaN)."""
    raise NotImplementedError


def profile(scores: pd.DataFrame) -> pd.DataFrame:
    """Performance profile of `scores` (settings x strategies, higher is better).

    Index: tau, a distance to the best of a setting, ascending from 0; columns: the
    strategies; values: the share of the settings in which the strategy is within tau
    of the best.
    """
    raise NotImplementedError
