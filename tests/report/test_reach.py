"""What the seeds could show, and what the sentences make of the tests."""

import pytest
from scipy import stats as scipy_stats

from kdbench.report import reach
from kdbench.report.evidence import detectable_table
from kdbench.report.sections import sections
from kdbench.report.words import summary


@pytest.fixture
def section(make):
    """The section of: label -> a value for each seed, None for a failed run."""

    def of(**values):
        records = [r for k, v in values.items() for r in make.strategy(k, v)]
        return sections(make.results(make.teacher(), *records))[0]

    return of


def reader(table):
    names = [row.cells[0].value for row in table.rows]
    return names, lambda name, key: table.cell(names.index(name), key)


def test_power_by_the_noncentral_t(section):
    """Differences with sd 1, 2 and 4: the median is 2."""
    found = section(
        kd=[80, 80, 80], a=[80, 81, 82], b=[80, 82, 84], c=[80, 84, 88], d=[9, 9, 9]
    )
    table = detectable_table(found)
    names, at = reader(table)
    assert names == ["least", "median", "largest"]
    assert [at(name, "sd").value for name in names] == pytest.approx([1, 2, 4])
    assert {at(name, "n").value for name in names} == {3}

    def power(difference, sd, n, level):
        limit = scipy_stats.t.isf(level / 2, n - 1)
        shift = difference / sd * n**0.5
        tails = scipy_stats.nct(n - 1, shift)
        return tails.sf(limit) + tails.cdf(-limit)

    one, holm = at("median", "detectable").value, at("median", "detectable_holm").value
    assert power(one, 2, 3, 0.05) == pytest.approx(0.8, abs=1e-6)
    assert power(holm, 2, 3, 0.05 / 3) == pytest.approx(0.8, abs=1e-6)
    seeds = at("least", "seeds_0.5").value
    assert power(0.5, 1, seeds, 0.05) >= 0.8 > power(0.5, 1, seeds - 1, 0.05)
    assert at("largest", "seeds_0.1").text == ">10,000"
    assert at("largest", "seeds_0.1").value is None


def test_one_strategy_has_one_row_of_power(section):
    table = detectable_table(section(kd=[80, 80], a=[80, 81]))
    assert [row.cells[0].value for row in table.rows] == ["median"]


def test_kd_alone_is_held_against_scratch(section):
    found = section(scratch=[80, 80, 80], kd=[80, 81, 82])
    assert "of differences to scratch" in detectable_table(found).caption


def test_what_the_seeds_show_in_a_sentence(section):
    """sd 0.31 of -0.31, 0, 0.31: 1.01 points with 3 seeds."""
    found = section(kd=[80, 80, 80], a=[79.69, 80, 80.31])
    told = " ".join(summary(found))
    assert (
        "Not significant does not mean equal: with 3 seeds and the spread seen here "
        "(median sd of the differences to kd 0.31 points), one test finds a true "
        "difference of 1.0 points 4 times in 5; to see 0.3 points takes 11 seeds."
    ) in told
    fine = section(kd=[80, 80, 80], a=[79.95, 80, 80.05])
    assert reach.sentence(fine).endswith(
        "0.16 points 4 times in 5; to see 0.1 points takes 5 seeds"
    )
    finest = section(kd=[80, 80, 80], a=[79.99, 80, 80.01])
    assert reach.sentence(finest).endswith("0.033 points 4 times in 5")


def test_the_number_of_seeds_is_that_of_most_strategies(section):
    found = section(kd=[80, 80, 80], a=[80, 81, 83], b=[80, 81, None], c=[80, 82, 81])
    assert reach.reach(found).n == 3


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([5, 5, 5, 5, 5, -1], "adjusted alike, 1 of these not significant (a)."),
        ([1, 1.1, 1, 1, 1, 40], "adjusted alike, 1 more significant (a)."),
        ([5, 5.5, 5, 5, 5, 5], ""),
        ([5, 5, 5, 5, 5, -5], ""),
    ],
)
def test_sign_flips_are_told_where_they_change_the_reading(
    section, differences, expected
):
    """t: p = 0.01, 0.3, < 0.001, 0.1; sign flips: 4 / 64, 2 / 64, 2 / 64, 14 / 64."""
    found = section(kd=[50] * 6, a=[50 + d for d in differences])
    told = " ".join(summary(found))
    assert expected in told
    assert ("By sign-flip" in told) == bool(expected)


def test_sign_flips_that_can_decide_nothing_are_not_told(section):
    found = section(kd=[50] * 5, a=[55, 55.1, 55, 55, 55])
    assert "1 significantly better (a)" in " ".join(summary(found))
    assert "sign-flip" not in " ".join(summary(found))
