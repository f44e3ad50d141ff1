"""What seeds can show, against statsmodels' power of the paired t-test."""

import pytest
from statsmodels.stats.power import TTestPower

from kdbench.stats import detectable, seeds_needed

ONE_SAMPLE = TTestPower()


def power_of(difference, sd, n, level):
    """Power of the two-sided test: its other tail is below 1e-4 where this is >= 0.5.

    (Asked for both tails, statsmodels gives NaN where scipy's noncentral t is.)
    """
    return ONE_SAMPLE.power(difference / sd, n, level / 2, alternative="larger")


@pytest.mark.parametrize("level", [0.05, 0.05 / 50])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("n", [2, 3, 5, 14, 200])
def test_detectable_has_the_power_it_says(n, power, level):
    found = detectable(0.3, n, power, level)
    assert power_of(found, 0.3, n, level) == pytest.approx(power, abs=1e-4)


def test_both_tails_count():
    """Power 0.06 at level 0.05: without the other tail it would be 0.045."""
    found = detectable(0.3, 5, power=0.06)
    assert ONE_SAMPLE.power(found / 0.3, 5, 0.05) == pytest.approx(0.06)
    assert power_of(found, 0.3, 5, 0.05) < 0.05


def test_known_sample_size():
    """34 pairs for d = 0.5 at power 0.8 and two-sided 0.05, as G*Power 3 has it."""
    assert seeds_needed(sd=1.0, difference=0.5) == 34


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.4, 0.7, 1.0, 2.0, 4.0])
def test_seeds_needed_is_the_fewest(ratio):
    n = seeds_needed(0.2, 0.2 * ratio)
    assert power_of(ratio, 1, n, 0.05) >= 0.8
    assert n == 2 or power_of(ratio, 1, n - 1, 0.05) < 0.8


def test_the_two_agree():
    for n in (2, 3, 5, 10, 40):
        difference = detectable(0.4, n)
        assert seeds_needed(0.4, difference * 1.0001) == n
        assert seeds_needed(0.4, difference * 0.9999) == n + 1


def test_more_seeds_find_less_and_more_noise_hides_more():
    found = [detectable(0.3, n) for n in (2, 3, 5, 10, 100)]
    assert found == sorted(found, reverse=True)
    assert detectable(0.6, 5) == pytest.approx(2 * detectable(0.3, 5))
    assert detectable(0.3, 5, power=0.9) > detectable(0.3, 5)
    assert detectable(0.3, 5, level=0.01) > detectable(0.3, 5)


def test_without_seeds_or_noise():
    assert detectable(0.3, 1) is None
    assert detectable(0.3, 0) is None
    assert detectable(0.0, 3) == 0
    assert seeds_needed(0.0, 0.1) == 2
    assert seeds_needed(1e-12, 0.1) == 2
    assert detectable(1e-300, 3) == pytest.approx(0, abs=1e-290)


def test_what_no_number_of_seeds_finds():
    assert seeds_needed(0.3, 0.0) is None
    assert seeds_needed(0.0, 0.0) is None
    assert seeds_needed(0.3, 1e-9) is None
    assert seeds_needed(1.0, 0.02) is None
    assert seeds_needed(1.0, 0.0281) <= 10_000


@pytest.mark.parametrize("wrong", [-0.1, float("nan"), float("inf")])
def test_impossible_numbers_are_errors(wrong):
    with pytest.raises(ValueError, match="standard deviation"):
        detectable(wrong, 5)
    with pytest.raises(ValueError, match="standard deviation"):
        seeds_needed(wrong, 0.5)
    with pytest.raises(ValueError, match="difference"):
        seeds_needed(0.3, wrong)


@pytest.mark.parametrize(("power", "level"), [(0.05, 0.05), (1, 0.05), (0.8, 0)])
def test_impossible_levels_are_errors(power, level):
    with pytest.raises(ValueError, match="level"):
        detectable(0.3, 5, power, level)
    with pytest.raises(ValueError, match="level"):
        seeds_needed(0.3, 0.5, power, level)
