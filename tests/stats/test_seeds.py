"""Intervals and tests against scipy and published examples."""

import math

import numpy as np
import pytest
from scipy import stats as reference
from statsmodels.stats.multitest import multipletests

from kdbench.stats import holm, interval, least_p, not_worse, paired, sign_flip


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


@pytest.mark.parametrize("m", [1, 2, 7, 55])
def test_holm_is_statsmodels_holm(m):
    p_values = np.random.default_rng(m).random(m) ** 2
    p_values[m // 2] = p_values[0]  # a tie
    found = holm(dict(enumerate(p_values.tolist())))
    expected = multipletests(p_values, method="holm")[1]
    assert list(found) == list(range(m))
    assert list(found.values()) == pytest.approx(list(expected))


# Darwin 1876, 15 pairs of maize, crossed less self-fertilised, eighths of an inch
MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def test_sign_flip_on_darwins_maize():
    """Fisher 1935, section 21: 1726 of the 32768 arrangements, 5.267%."""
    assert sign_flip(MAIZE) == 1726 / 32768
    assert paired(MAIZE, [0] * 15).p_value == pytest.approx(0.0497, abs=5e-5)


@pytest.mark.parametrize("n", [2, 3, 5, 9, 12])
def test_sign_flip_is_scipys_permutation_test(n):
    rng = np.random.default_rng(n)
    for values in (rng.normal(0.5, 1, n), rng.integers(-2, 5, n).astype(float)):
        expected = reference.permutation_test(
            (values,),
            lambda x, axis: x.mean(axis=axis),
            permutation_type="samples",
            n_resamples=np.inf,
            vectorized=True,
        )
        assert sign_flip(values.tolist()) == expected.pvalue


def test_sign_flip_counts_ties_that_rounding_would_break():
    """0.3 - 0.1 - 0.2 is not 0 in binary; 3 - 1 - 2 is."""
    for whole in ([1, 2, -3], [3, 1, 2, 4, -2], [7, -1, 2, -6, 1], [5, 5, -5, 5, 2]):
        for unit in (0.1, 1 / 3, 1e-9, 1e9):
            assert sign_flip([v * unit for v in whole]) == sign_flip(whole)


def test_sign_flip_knows_neither_sign_nor_order_nor_unit():
    found = sign_flip(MAIZE)
    assert sign_flip([-v for v in MAIZE]) == found
    assert sign_flip(sorted(MAIZE)) == found
    assert sign_flip([v / 8 * 2.54 for v in MAIZE]) == found


def test_sign_flip_of_zeros():
    assert sign_flip([0.0] * 5) == 1
    # a zero flips into itself: every arrangement counts twice
    assert sign_flip([0.0, *MAIZE]) == sign_flip(MAIZE)
    assert sign_flip([0.0, 0.0, 1.0]) == 1


@pytest.mark.parametrize("n", [2, 5, 6, 14, 20, 21, 40])
def test_least_p_is_what_equal_differences_give(n):
    assert sign_flip([1.0] * n) == pytest.approx(least_p(n))


def test_five_seeds_cannot_be_significant_by_sign_flips():
    assert least_p(5) == 0.0625
    assert least_p(6) == 0.03125
    assert least_p(1) is None


@pytest.mark.parametrize("n", [21, 40])
def test_sign_flip_of_many_is_drawn(n):
    """Near the t-test's p, which the permutation test tends to; always the same."""
    values = np.random.default_rng(n).normal(0.3, 1, n).tolist()
    found = sign_flip(values)
    assert found == pytest.approx(paired(values, [0.0] * n).p_value, abs=0.02)
    assert sign_flip(values) == found
    assert sign_flip([0.0] * n) == 1


def test_drawn_and_all_flips_agree(monkeypatch):
    """Within 4 standard errors of 100,000 draws."""
    monkeypatch.setattr("kdbench.stats.seeds.EXACT", 10)
    p = 1726 / 32768
    found = sign_flip(MAIZE)
    assert found != p
    assert found == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 100_000))


def test_sign_flip_needs_two_finite_values():
    assert sign_flip([]) is None
    assert sign_flip([3.0]) is None
    for wrong in (math.nan, math.inf):
        with pytest.raises(ValueError, match="missing or not finite"):
            sign_flip([1.0, wrong, 2.0])


def by_seed(**values):
    return {name: dict(enumerate(found)) for name, found in values.items()}


def test_not_worse_keeps_those_that_cannot_be_told_from_the_best():
    values = by_seed(
        best=[80.0, 80.3, 79.9, 80.2, 80.1],
        near=[79.8, 80.4, 79.7, 80.3, 79.9],
        worse=[75.0, 75.2, 74.9, 75.3, 75.0],
    )
    assert not_worse(values) == {"best", "near"}
    swapped = {
        name: {k: -v for k, v in found.items()} for name, found in values.items()
    }
    assert not_worse(swapped) == {"worse"}


def test_not_worse_is_holm_over_all_pairs_of_statsmodels():
    rng = np.random.default_rng(5)
    table = rng.normal(0, 0.3, (12, 5)) - 0.35 * np.arange(12)[:, None]
    names = [f"s{i}" for i in range(12)]
    best = int(table.mean(axis=1).argmax())
    pairs = [(i, j) for i in range(12) for j in range(i)]
    p_values = [reference.ttest_rel(table[i], table[j]).pvalue for i, j in pairs]
    rejected = multipletests(p_values, 0.05, method="holm")[0]
    worse = {
        i if j == best else j
        for (i, j), yes in zip(pairs, rejected, strict=True)
        if yes and best in (i, j)
    }
    assert 2 < len(worse) < 10
    expected = {name for i, name in enumerate(names) if i not in worse}
    found = not_worse(
        {n: dict(enumerate(row)) for n, row in zip(names, table.tolist(), strict=True)}
    )
    assert found == expected


def test_not_worse_corrects_for_every_pair():
    """One test at p = 0.02 rejects; among 20 more noisy strategies it does not."""
    two = by_seed(a=[1.0, 1.4, 1.1, 1.7, 1.2], b=[0.9, 0.9, 0.8, 1.1, 0.9])
    assert paired(list(two["a"].values()), list(two["b"].values())).p_value < 0.05
    assert not_worse(two) == {"a"}
    rng = np.random.default_rng(0)
    many = {f"s{i}": dict(enumerate(rng.normal(1, 0.2, 5))) for i in range(20)}
    assert "b" in not_worse({**two, **many})
    assert not_worse(two, level=0.001) == {"a", "b"}


def test_not_worse_needs_a_test():
    one_seed = by_seed(a=[80.0], b=[79.9])
    assert not_worse(one_seed) == {"a"}
    apart = {"a": {0: 80.0, 1: 80.2}, "b": {1: 80.1, 2: 79.9}}
    assert not_worse(apart) == {"a"}
    constant = by_seed(a=[80.5, 81.0, 80.0], b=[80.0, 80.5, 79.5])
    assert not_worse(constant) == {"a"}
    identical = by_seed(a=[80.5, 81.0, 80.0], b=[80.5, 81.0, 80.0])
    assert not_worse(identical) == {"a", "b"}


def test_not_worse_keeps_what_is_better_on_the_common_seeds():
    """The best by its mean has one lucky seed that the other has not."""
    lucky = {0: 80.0, 1: 80.1, 2: 79.9, 3: 99.0}
    other = {0: 81.0, 1: 81.11, 2: 80.9}
    assert paired([80.0, 80.1, 79.9], [81.0, 81.11, 80.9]).p_value < 0.001
    assert not_worse({"lucky": lucky, "other": other}) == {"lucky", "other"}


def test_not_worse_of_nothing():
    assert not_worse({}) == set()
    assert not_worse({"a": {}}) == set()
    assert not_worse({"a": {}, "b": {0: 1.0}}) == {"b"}
