"""Tests over test items against scipy, statsmodels and a textbook's example."""

import time

import numpy as np
import pytest
import torch
from scipy import stats as reference
from statsmodels.stats.contingency_tables import mcnemar as expected_mcnemar

from kdbench.measure.quality import bitmask
from kdbench.stats import bootstrap_items, mcnemar, unpack


def classifiers(both, only_a, only_b, neither):
    """Two (items,) arrays with so many items right by both, only by a, ..."""
    counts = [both, only_a, only_b, neither]
    a = np.repeat([True, True, False, False], counts)
    b = np.repeat([True, False, True, False], counts)
    return a, b


@pytest.mark.parametrize("items", [0, 1, 7, 8, 9, 360])
def test_unpack_undoes_what_a_record_keeps(items):
    right = np.random.default_rng(items).random(items) < 0.7
    found = unpack(bitmask(torch.from_numpy(right)), items)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("//8=", 8),  # two bytes are more than 8 items
        ("/w==", 9),  # one byte is fewer than 9
        ("/w==", 7),  # a bit beyond the 7 items is set
        ("", 1),
        ("/w", 8),  # base64 cut off
        ("/!w==", 8),  # not a letter of base64
        ("/é==", 8),
    ],
)
def test_unpack_refuses_other_bits(text, items):
    with pytest.raises(ValueError):  # noqa: PT011 - base64 has its own words
        unpack(text, items)


@pytest.mark.parametrize(
    "counts",
    [(5, 3, 1, 2), (0, 1, 0, 0), (9, 4, 4, 0), (900, 40, 61, 99), (0, 0, 9, 0)],
)
def test_mcnemar_is_statsmodels_exact_test(counts):
    both, only_a, only_b, neither = counts
    found = mcnemar(*classifiers(*counts))
    expected = expected_mcnemar([[both, only_a], [only_b, neither]], exact=True)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    assert found.p_value == pytest.approx(expected.pvalue)


def test_mcnemar_textbook_example():
    """Agresti 1990, page 350: 794, 150, 86, 570.

    Its statistic without correction is 17.36; R's binom.test(86, 236) gives 3.716e-05.
    """
    found = mcnemar(*classifiers(794, 150, 86, 570))
    squared = (found.only_a - found.only_b) ** 2 / (found.only_a + found.only_b)
    assert squared == pytest.approx(17.36, abs=0.005)
    assert found.p_value == pytest.approx(3.716e-05, rel=1e-4)


def test_mcnemar_knows_only_the_items_that_differ():
    few, many = classifiers(0, 9, 2, 0), classifiers(5000, 9, 2, 800)
    assert mcnemar(*few).p_value == mcnemar(*many).p_value
    swapped = mcnemar(*reversed(few))
    assert (swapped.only_a, swapped.only_b) == (2, 9)
    assert swapped.p_value == mcnemar(*few).p_value


def test_mcnemar_without_a_difference():
    found = mcnemar(*classifiers(7, 0, 0, 3))
    assert (found.only_a, found.only_b, found.p_value) == (0, 0, 1.0)


def test_mcnemar_refuses_other_items():
    with pytest.raises(ValueError, match="differ in number"):
        mcnemar(np.ones(3, bool), np.ones(1, bool))


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_bootstrap_is_scipys_percentile_bootstrap(level):
    """Two seeds of resamples differ, so to a tenth of the interval's width."""
    rng = np.random.default_rng(1)
    differences = rng.choice([-1, -0.5, 0, 0.5, 1], 400, p=[0.05, 0.1, 0.6, 0.15, 0.1])
    low, high = bootstrap_items(differences, level, resamples=20_000)
    expected = reference.bootstrap(
        (differences,),
        np.mean,
        n_resamples=20_000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    width = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.05 * width)
    assert high == pytest.approx(expected.high, abs=0.05 * width)


def test_bootstrap_is_reproducible_and_moves_with_the_differences():
    differences = np.random.default_rng(3).integers(-3, 4, 500) / 3
    low, high = bootstrap_items(differences)
    assert bootstrap_items(differences) == (low, high)
    assert bootstrap_items(differences[::-1]) == (low, high)
    assert bootstrap_items(differences, seed=1) != (low, high)
    assert bootstrap_items(differences + 2) == pytest.approx((low + 2, high + 2))
    wide = bootstrap_items(differences, level=0.99)
    assert wide[0] < low < differences.mean() < high < wide[1]


def test_bootstrap_of_equal_differences_has_no_width():
    assert bootstrap_items(np.full(9, 0.25)) == (0.25, 0.25)


@pytest.mark.parametrize("values", [[], [0.0, np.nan], [np.inf]])
def test_bootstrap_refuses_what_is_missing(values):
    with pytest.raises(ValueError, match="finite"):
        bootstrap_items(np.array(values, float))


def test_bootstrap_of_many_items_is_fast():
    """12 ms on two busy cores; drawing items one by one takes above 1 s."""
    differences = np.random.default_rng(0).integers(-5, 6, 10_000) / 5
    started = time.process_time()
    bootstrap_items(differences)
    assert time.process_time() - started < 0.3
