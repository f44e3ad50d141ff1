"""What happens where there is nothing to find: error rates of every test, simulated.

A rate is held against its level plus three standard errors of the simulation; where the
test is exact it must not lie below by more than that either.
"""

import math
from collections import Counter
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from kdbench.stats import (
    bootstrap_items,
    detectable,
    holm,
    mcnemar,
    not_worse,
    paired,
    rank,
    sign_flip,
)

pytestmark = pytest.mark.slow

LEVEL = 0.05


def slack(runs, rate=LEVEL):
    return 3 * math.sqrt(rate * (1 - rate) / runs)


def names(count):
    return [f"s{i}" for i in range(count)]


@pytest.mark.parametrize("n", [2, 3, 5])
def test_paired_t(n):
    runs, rng = 10_000, np.random.default_rng(n)
    a = rng.normal(70, 1, (runs, n))
    b = a + rng.normal(0, 0.3, (runs, n))
    rate = np.mean([paired(x, y).p_value < LEVEL for x, y in zip(a, b, strict=True)])
    assert abs(rate - LEVEL) <= slack(runs)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_interval_of_paired_differences_covers(n):
    runs, rng = 10_000, np.random.default_rng(10 + n)
    differences = rng.normal(0.4, 0.3, (runs, n))
    zeros = [0.0] * n
    found = [paired(row, zeros) for row in differences]
    missed = np.mean([abs(one.mean - 0.4) > one.half_width for one in found])
    assert abs(missed - LEVEL) <= slack(runs)


@pytest.mark.parametrize("n", [5, 6, 8, 11])
def test_sign_flip_of_heavy_tails(n):
    """Exact for symmetric noise: the largest multiple of its least p up to 0.05."""
    runs, rng = 10_000, np.random.default_rng(n)
    differences = rng.standard_t(2, (runs, n))
    attainable = math.floor(LEVEL * 2 ** (n - 1)) / 2 ** (n - 1)
    rate = np.mean([sign_flip(row) <= LEVEL for row in differences])
    assert abs(rate - attainable) <= slack(runs, attainable)


def test_sign_flip_with_ties():
    """Accuracies are multiples of 1 / items, so differences tie: then conservative."""
    runs, rng = 10_000, np.random.default_rng(0)
    differences = rng.integers(-3, 4, (runs, 8)) / 3.6
    rate = np.mean([sign_flip(row) < LEVEL for row in differences])
    assert 0 < rate <= LEVEL + slack(runs)


@pytest.mark.parametrize("items", [50, 1000])
def test_mcnemar_is_conservative(items):
    runs, rng = 10_000, np.random.default_rng(items)
    easy = rng.random((runs, items)) < 0.6  # right for both
    a, b = (easy | (rng.random((runs, items)) < 0.3) for _ in range(2))
    rate = np.mean([mcnemar(x, y).p_value < LEVEL for x, y in zip(a, b, strict=True)])
    assert 0.01 < rate <= LEVEL


def test_holm_over_strategies_that_share_a_baseline():
    """20 strategies against one kd: any of them significant in 5% of studies."""
    runs, rng = 1500, np.random.default_rng(0)
    false = 0
    for _ in range(runs):
        kd, others = rng.normal(0, 0.3, 5), rng.normal(0, 0.3, (20, 5))
        found = holm({i: paired(x, kd).p_value for i, x in enumerate(others)})
        false += min(found.values()) < LEVEL
    assert 0 < false / runs <= LEVEL + slack(runs)


def test_holm_leaves_room_where_some_strategies_do_differ():
    """Half are better by far: the other half has its error rate all the same."""
    runs, rng = 1500, np.random.default_rng(1)
    false = 0
    for _ in range(runs):
        kd, others = rng.normal(0, 0.3, 5), rng.normal(0, 0.3, (20, 5))
        others[10:] += 50
        found = holm({i: paired(x, kd).p_value for i, x in enumerate(others)})
        false += min(found[i] for i in range(10)) < LEVEL
    assert 0 < false / runs <= LEVEL + slack(runs)


def exact_friedman(settings, strategies):
    """Its error rate by its chi-square p-values, over all equally likely rankings."""
    orders = list(permutations(range(1, strategies + 1)))
    sums = Counter({(0,) * strategies: 1})
    for _ in range(settings):
        more = Counter()
        for total, ways in sums.items():
            for order in orders:  # which strategy has which sum does not matter
                added = sorted(map(sum, zip(total, order, strict=True)))
                more[tuple(added)] += ways
        sums = more
    k, false = strategies, 0
    for total, ways in sums.items():
        squares = sum(value**2 for value in total)
        statistic = 12 * squares / (settings * k * (k + 1)) - 3 * settings * (k + 1)
        false += ways * (reference.chi2.sf(statistic, k - 1) < LEVEL)
    return false / sums.total()


def test_why_friedmans_test_needs_five_settings_and_four_strategies():
    """What `ranks.FEWEST_SETTINGS` says of the chi-square approximation."""
    three = {n: exact_friedman(n, 3) for n in range(2, 21)}
    assert three[2] == 0
    assert three[4] == pytest.approx(0.069, abs=0.0005)
    assert three[5] <= LEVEL
    assert max(rate for n, rate in three.items() if n >= 5) == pytest.approx(
        0.058, abs=0.0005
    )
    assert all(exact_friedman(n, 4) <= LEVEL for n in range(2, 13))


@pytest.mark.parametrize("strategies", [4, 6, 20])
def test_friedman_and_nemenyi_of_the_fewest_settings(strategies):
    """Neither finds a difference, nor any pair, more often than it may."""
    runs, rng = 1500, np.random.default_rng(strategies)
    columns = names(strategies)
    rejected = apart = 0
    for _ in range(runs):
        values = rng.normal(size=(5, strategies)) + 10 * rng.normal(size=(5, 1))
        found = rank(pd.DataFrame(values, columns=columns))
        rejected += found.p_value < LEVEL
        apart += found.pairs is not None and (found.pairs < LEVEL).any(axis=None)
    assert 0 < rejected / runs <= LEVEL + slack(runs)
    assert apart <= rejected


def test_bootstrap_over_items_covers():
    """Of two networks' differences on 1000 items, three seeds each."""
    runs, rng = 1500, np.random.default_rng(0)
    mean = 0.72 - 0.70
    missed = 0
    for run in range(runs):
        a = (rng.random((3, 1000)) < 0.72).mean(axis=0)
        b = (rng.random((3, 1000)) < 0.70).mean(axis=0)
        low, high = bootstrap_items(a - b, resamples=1000, seed=run)
        missed += not low <= mean <= high
    assert abs(missed / runs - LEVEL) <= slack(runs) + 0.005  # 1000 resamples


@pytest.mark.parametrize("worse", [0, 5])
@pytest.mark.parametrize("strategies", [2, 10])
def test_not_worse_keeps_all_that_are_equally_good(strategies, worse):
    """Also where others are far worse, and where noise differs among strategies."""
    runs, rng = 1000, np.random.default_rng(strategies + worse)
    labels = names(strategies + worse)
    equal, sd = set(labels[:strategies]), 0.3 * (1 + np.arange(len(labels)) % 3)
    lost = 0
    for _ in range(runs):
        table = rng.normal(0, 1, (len(labels), 5)) * sd[:, None]
        table[strategies:] -= 1000
        rows = zip(labels, table.tolist(), strict=True)
        found = not_worse({name: dict(enumerate(row)) for name, row in rows})
        assert worse == 0 or strategies + worse > len(found)
        lost += not equal <= found
    assert lost / runs <= LEVEL + slack(runs)


def test_detectable_differences_are_found_as_often_as_promised():
    runs, rng = 5000, np.random.default_rng(0)
    for n in (3, 5):
        there = detectable(0.3, n, power=0.8)
        differences = rng.normal(there, 0.3, (runs, n))
        zeros = [0.0] * n
        rate = np.mean([paired(row, zeros).p_value < LEVEL for row in differences])
        assert abs(rate - 0.8) <= slack(runs, 0.8)
