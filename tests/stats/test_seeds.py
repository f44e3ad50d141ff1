"""Intervals and tests against scipy and published examples."""

import math

import numpy as np
import pytest
from scipy import stats as reference

from kdbench.stats import holm, interval, paired


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_interval_is_scipys_t_interval(n):
    rng = np.random.default_rng(n)
    values = [rng.normal(70, 0.3) for _ in range(n)]
    found = interval(values, 0.9)
    low, high = reference.t.interval(
        0.9, n - 1, loc=found.mean, scale=reference.sem(values)
    )
    assert found.mean == pytest.approx(sum(values) / n)
    assert found.sd == pytest.approx(reference.tstd(values))
    assert found.half_width == pytest.approx((high - low) / 2)


def test_one_value_has_no_interval():
    found = interval([71.5])
    assert (found.mean, found.sd, found.half_width, found.n) == (71.5, None, None, 1)


def test_equal_values_have_no_spread_from_rounding():
    found = interval([0.1, 0.1, 0.1])
    assert (found.mean, found.sd, found.half_width) == (0.1, 0.0, 0.0)


def test_no_values_are_an_error():
    with pytest.raises(ValueError, match="no values"):
        interval([])


@pytest.mark.parametrize("n", [2, 3, 10])
def test_paired_is_scipys_paired_t_test(n):
    rng = np.random.default_rng(n)
    a = [rng.normal(71, 1) for _ in range(n)]
    b = [x - rng.normal(0.5, 0.2) for x in a]
    found, expected = paired(a, b), reference.ttest_rel(a, b)
    low, high = expected.confidence_interval(0.95)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.mean == pytest.approx((low + high) / 2)
    assert found.half_width == pytest.approx((high - low) / 2)


def test_students_own_example():
    """Student 1908, table on hours of sleep: mean 1.58, p of the paired test 0.0028."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = paired(second, first)
    assert found.mean == pytest.approx(1.58)
    assert found.p_value == pytest.approx(0.00283, abs=5e-6)


def test_paired_without_variance_is_never_a_false_certainty():
    assert paired([1.1, 2.2, 3.3], [1.1, 2.2, 3.3]).p_value == 1
    constant = paired([80.3, 81.3, 82.3], [80.1, 81.1, 82.1])
    assert constant.p_value is None
    assert constant.mean == pytest.approx(0.2)
    assert constant.half_width == 0


def test_one_pair_cannot_be_tested():
    found = paired([2.0], [1.0])
    assert (found.mean, found.half_width, found.p_value, found.n) == (1, None, None, 1)


def test_unequal_numbers_are_an_error():
    with pytest.raises(ValueError, match="2 and 1"):
        paired([1.0, 2.0], [1.0])


def test_holm_published_example():
    """Wikipedia, Holm-Bonferroni method: H4 and H1 are rejected at 0.05, no others."""
    found = holm({"H1": 0.01, "H2": 0.04, "H3": 0.03, "H4": 0.005})
    assert found == pytest.approx({"H1": 0.03, "H2": 0.06, "H3": 0.06, "H4": 0.02})
    assert [name for name, p in found.items() if p < 0.05] == ["H1", "H4"]


def test_holm_example_of_r():
    """R, p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")."""
    found = holm(dict(zip("abcde", [0.01, 0.02, 0.03, 0.04, 0.05], strict=True)))
    assert list(found.values()) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])


def test_holm_leaves_out_what_was_not_tested_and_stops_at_one():
    assert holm({"a": 0.6, "b": None, "c": 0.7}) == {"a": 1.0, "b": None, "c": 1.0}
    assert holm({}) == {}
    assert all(not math.isnan(p) for p in holm({"a": 0.0}).values())
