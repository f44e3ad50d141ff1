"""Ranks, Friedman's and Nemenyi's tests and profiles, against scipy and Demsar 2006."""

import numpy as np
import pandas as pd
import pytest
from scikit_posthocs import posthoc_nemenyi_friedman
from scipy import stats as reference

from kdbench.stats import profile, rank

# Demsar 2006, "Statistical comparisons of classifiers over multiple data sets", JMLR 7,
# table 6: the ranks of C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on 14 data sets.
DEMSAR = pd.DataFrame(
    [
        (4, 3, 2, 1),
        (1, 2, 3, 4),
        (4, 1, 2, 3),
        (4, 1, 3, 2),
        (4, 2, 3, 1),
        (1, 2.5, 4, 2.5),
        (3, 2, 4, 1),
        (2.5, 2.5, 4, 1),
        (4, 3, 2, 1),
        (2.5, 2.5, 2.5, 2.5),
        (4, 2.5, 1, 2.5),
        (3, 2, 4, 1),
        (4, 1, 2, 3),
        (3, 1, 4, 2),
    ],
    columns=["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"],
)


def scores(settings, strategies, apart=0.0, seed=0):
    """Settings of different difficulty; each strategy better than the one before."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(settings, strategies)) + apart * np.arange(strategies)
    values += 10 * rng.normal(size=(settings, 1))
    return pd.DataFrame(values, columns=[f"s{i}" for i in range(strategies)])


def test_demsars_example():
    """Mean ranks 3.143, 2.000, 2.893, 1.964; chi-square 9.28; CD 1.25 at 0.05.

    The paper's statistic leaves out the correction for ties, which divides it by
    1 - sum(t^3 - t) / (N k (k^2 - 1)): here three ties of two and one of four.
    """
    found = rank(-DEMSAR)
    expected = [3.143, 2.0, 2.893, 1.964]
    assert list(found.mean) == list(DEMSAR.columns)
    assert list(found.mean.values()) == pytest.approx(expected, abs=0.0005)
    ties = 1 - (3 * 6 + 60) / (14 * 4 * 15)
    assert found.statistic * ties == pytest.approx(9.28, abs=0.02)
    assert found.p_value < 0.05
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    # "the post-hoc test is not powerful enough to detect any significant differences"
    assert (found.pairs.to_numpy() > 0.05).all()
    assert found.settings == 14
    assert not found.reason


@pytest.mark.parametrize(("k", "q"), [(4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_values_of_demsars_table(k, q):
    """Demsar 2006, table 5 (a): q at 0.05 for the two-tailed Nemenyi test."""
    found = rank(scores(12, k, apart=5))
    assert found.critical_difference == pytest.approx(
        q * np.sqrt(k * (k + 1) / (6 * 12)), rel=3e-4
    )


@pytest.mark.parametrize(("settings", "strategies"), [(5, 4), (8, 6), (13, 55)])
def test_rank_is_scipys_friedman_and_nemenyi(settings, strategies):
    table = scores(settings, strategies, apart=3)
    found = rank(table)
    expected = reference.friedmanchisquare(*table.to_numpy().T)
    ranks = reference.rankdata(-table.to_numpy(), axis=1).mean(axis=0)
    assert list(found.mean.values()) == pytest.approx(list(ranks))
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)
    pairs = posthoc_nemenyi_friedman(table)
    assert list(found.pairs.columns) == list(found.pairs.index) == list(table.columns)
    np.testing.assert_allclose(found.pairs, pairs)
    # a pair is apart by its p-value where it is by the critical difference
    apart = abs(ranks[:, None] - ranks[None, :]) >= found.critical_difference
    np.testing.assert_array_equal(apart, found.pairs.to_numpy() <= 0.05)


def test_pairs_are_not_tested_unless_friedman_rejects():
    found = rank(scores(8, 5))
    assert found.p_value >= 0.05
    assert found.statistic is not None
    assert found.pairs is None
    assert found.critical_difference is None
    assert "does not show that the strategies differ" in found.reason


@pytest.mark.parametrize(
    ("settings", "strategies", "words"),
    [
        (1, 6, "over 1 setting are"),
        (4, 6, "over 4 settings are"),
        (9, 3, "Ranks of 3 strategies are shown without a test: with fewer than 4"),
        (9, 2, "of 2 strategies"),
        (9, 1, "of one strategy"),
    ],
)
def test_too_few_for_a_test(settings, strategies, words):
    found = rank(scores(settings, strategies, apart=50))
    assert found.mean[f"s{strategies - 1}"] == 1  # the best
    assert found.mean["s0"] == strategies
    assert (found.statistic, found.p_value, found.pairs) == (None, None, None)
    assert found.critical_difference is None
    assert found.settings == settings
    assert words in found.reason
    assert found.reason.endswith(".")


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_nothing_to_rank(shape):
    found = rank(pd.DataFrame(np.ones(shape)))
    assert (found.mean, found.settings, found.p_value) == ({}, shape[0], None)
    assert found.reason


def test_strategies_equal_everywhere():
    table = pd.DataFrame([[70.0] * 4, [80.0] * 4, *[[90.0] * 4] * 4], columns=[*"abcd"])
    found = rank(table)
    assert found.mean == dict.fromkeys("abcd", 2.5)
    assert (found.statistic, found.p_value, found.pairs) == (0, 1, None)
    assert "equal in every setting" in found.reason


def test_rounding_breaks_no_tie():
    table = pd.DataFrame({"a": [0.1 + 0.2, 80.0], "b": [0.3, 80.1]})
    assert rank(table).mean == {"a": 1.75, "b": 1.25}
    small = pd.DataFrame({"a": [1.5e-7], "b": [1.4e-7]})
    assert rank(small).mean == {"a": 1, "b": 2}
    assert profile(table).index.tolist() == pytest.approx([0.0, 0.1])
    tenths = pd.DataFrame({"a": [70.3, 1.4, 5.0], "b": [70.2, 1.3, 4.9]})
    assert profile(tenths)["b"].tolist() == [0, 1]


def test_ranks_know_only_the_order_within_a_setting():
    table = scores(7, 5, apart=2, seed=4)
    found = rank(table)
    moved = rank(np.exp(table / 5) + np.arange(7)[:, None])
    assert moved.mean == found.mean
    assert moved.p_value == pytest.approx(found.p_value)
    shuffled = rank(table.sample(frac=1, random_state=1).iloc[:, ::-1])
    assert shuffled.mean == pytest.approx(found.mean)
    assert shuffled.statistic == pytest.approx(found.statistic)
    assert sum(found.mean.values()) == pytest.approx(5 * 6 / 2)


@pytest.mark.parametrize("of", [rank, profile])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_missing_score_is_an_error(of, wrong):
    table = scores(6, 3)
    table.iloc[2, 1] = wrong
    with pytest.raises(ValueError, match="missing or not finite"):
        of(table)


def test_profile_of_a_small_table():
    table = pd.DataFrame({"a": [70.0, 80.0, 90.0, 60.0], "b": [71.0, 80.0, 87.0, 60.5]})
    found = profile(table)
    assert found.index.tolist() == [0, 0.5, 1, 3]
    assert found.index.name == "tau"
    assert found["a"].tolist() == [0.5, 0.75, 1, 1]
    assert found["b"].tolist() == [0.75, 0.75, 0.75, 1]


def test_profile_is_a_distribution_of_the_distance():
    table = scores(9, 6, apart=0.5)
    found = profile(table)
    away = table.max(axis=1).to_numpy()[:, None] - table.to_numpy()
    for tau in found.index:
        np.testing.assert_allclose(found.loc[tau], (away <= tau + 1e-9).mean(axis=0))
    assert found.index.is_monotonic_increasing
    assert found.index.is_unique
    assert (found.diff().dropna() >= 0).all(axis=None)
    assert (found.iloc[-1] == 1).all()
    assert found.iloc[0].sum() == pytest.approx(1)  # no ties: one best per setting
    moved = profile(table + np.arange(9)[:, None])
    np.testing.assert_allclose(moved, found)


def test_no_scores_have_no_profile():
    with pytest.raises(ValueError, match="no scores"):
        profile(pd.DataFrame({"a": []}))
