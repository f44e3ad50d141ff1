"""Where one more value lies: against scipy, and by simulation."""

import numpy as np
import pytest
from scipy import stats as reference

from kdbench.stats import level_of_each, prediction


@pytest.mark.parametrize("level", [0.9, 0.99, 0.998])
@pytest.mark.parametrize("n", [3, 5, 30])
def test_it_is_scipys_t_with_the_spread_of_a_new_value(n, level):
    values = np.random.default_rng(n).normal(70, 0.3, n)
    found = prediction(list(values), level)
    scale = reference.tstd(values) * np.sqrt(1 + 1 / n)
    low, high = reference.t.interval(level, n - 1, loc=values.mean(), scale=scale)
    assert found.mean - found.half_width == pytest.approx(low)
    assert found.mean + found.half_width == pytest.approx(high)
    assert (found.n, found.level) == (n, level)


def test_published_example():
    """Montgomery & Runger, section 8-6: load at failure of one more specimen.

    22 of them, mean 13.71 and sd 3.55; 95% interval 6.16 to 21.26.
    """
    values = np.random.default_rng(0).normal(size=22)
    values = 13.71 + 3.55 * (values - values.mean()) / values.std(ddof=1)
    found = prediction(list(values), 0.95)
    assert found.mean - found.half_width == pytest.approx(6.16, abs=0.005)
    assert found.mean + found.half_width == pytest.approx(21.26, abs=0.005)


@pytest.mark.parametrize("n", [3, 5])
def test_one_more_value_is_outside_as_often_as_it_says(n):
    rng = np.random.default_rng(7)
    trials = 4000
    outside = 0
    for _ in range(trials):
        *values, new = rng.normal(70, 0.3, n + 1)
        outside += not prediction(values, 0.9).holds(new)
    assert outside / trials == pytest.approx(0.1, abs=3 * np.sqrt(0.09 / trials))


@pytest.mark.parametrize("together", [False, True])
def test_a_whole_check_errs_no_more_often_than_it_says(together):
    """Five cells whose values have nothing, or nearly all, in common."""
    rng = np.random.default_rng(11)
    trials, cells, wrong = 2000, 5, 0.1
    level = level_of_each(cells, wrong)
    erred = 0
    for _ in range(trials):
        drawn = rng.normal(0, 1, (cells, 6))
        if together:
            drawn = drawn[:1] + 0.01 * drawn
        checks = [prediction(list(row[:5]), level).holds(row[5]) for row in drawn]
        erred += not all(checks)
    least = 0.0 if together else 0.08
    assert least <= erred / trials <= wrong + 3 * np.sqrt(0.09 / trials)


def test_the_level_of_each_is_bonferronis():
    assert level_of_each(5, 0.01) == pytest.approx(0.998)
    assert level_of_each(1, 0.01) == pytest.approx(0.99)
    assert level_of_each(0, 0.01) == pytest.approx(0.99)


@pytest.mark.parametrize("values", [[71.0], [71.0, 72.0], [71.0, 71.0, 71.0]])
def test_too_few_and_equal_values_tell_no_spread(values):
    found = prediction(values, 0.99)
    assert found.half_width is None
    assert found.holds(71.0) is None


def test_the_ends_are_within_up_to_rounding():
    found = prediction([69.0, 70.0, 71.0], 0.99)
    end = found.mean + found.half_width
    assert found.holds(end)
    assert found.holds(end * (1 + 1e-12))
    assert not found.holds(end * (1 + 1e-6))
    assert not found.holds(found.mean - 1.001 * found.half_width)


@pytest.mark.parametrize("level", [0, 1, 1.2, float("nan")])
def test_impossible_levels_are_errors(level):
    with pytest.raises(ValueError, match="level"):
        prediction([1.0, 2.0, 3.0], level)


def test_no_values_are_an_error():
    with pytest.raises(ValueError, match="no values"):
        prediction([], 0.9)
