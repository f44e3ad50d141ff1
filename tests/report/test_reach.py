"""What the seeds could show, and what the sentences make of the tests."""

import numpy as np
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


def test_a_single_common_seed_shows_nothing_and_does_not_count(section):
    """Most strategies have one; the only sd is from two."""
    once = {name: [80, None, None] for name in "bcde"}
    found = section(kd=[80, 80, 80], a=[80, 81, None], **once)
    assert (reach.reach(found).n, reach.reach(found).tests) == (2, 1)
    assert reach.sentence(found).startswith("with 2 seeds and the spread")
    assert " difference of 0 " not in reach.sentence(found)
    _, at = reader(detectable_table(found))
    assert at("median", "detectable").value > 1
    assert reach.reach(section(kd=[80, 80], a=[81, None])) is None


def test_the_number_of_tests_is_a_plural(section):
    one, two = (
        detectable_table(section(kd=[80, 80, 80], **more)).caption
        for more in ({"a": [80, 81, 83]}, {"a": [80, 81, 83], "b": [80, 82, 81]})
    )
    assert "Holm's correction for 1 test; and" in one
    assert "Holm's correction for 2 tests; and" in two


def test_very_many_strategies_have_no_strictest_step(section):
    """500 tests: a level of 0.0001, the least; 501: below it."""
    draw = np.random.default_rng(0)
    many = {f"s{k}": [*draw.normal(80, 1, 3)] for k in range(501)}
    table = detectable_table(section(kd=[80, 80, 80], **many))
    names, at = reader(table)
    assert {at(name, "detectable_holm").text for name in names} == {"-"}
    assert all(at(name, "detectable_holm").value is None for name in names)
    assert all(at(name, "detectable").value > 0 for name in names)
    assert table.notes == ("-: not worked out for 501 tests (p < 0.0001).",)
    del many["s0"]
    table = detectable_table(section(kd=[80, 80, 80], **many))
    _, at = reader(table)
    assert at("median", "detectable_holm").value > at("median", "detectable").value
    assert not table.notes


def test_the_lead_that_is_told_from_the_best(section):
    """Of 10 pairs one is always 5 apart and has no test; the best is d."""
    values = {
        "kd": [80.0, 81.0, 82.0],
        "a": [80.0, 80.5, 83.0],
        "b": [75.0, 76.0, 77.0],
        "c": [79.0, 82.5, 81.0],
        "d": [85.0, 83.0, 84.0],
    }
    found = section(**values)
    told = reach.lead(found)
    sds = [
        np.std(np.subtract(values["d"], own), ddof=1)
        for name, own in values.items()
        if name != "d"
    ]
    assert (told.n, told.pairs) == (3, 10 - 1)
    assert told.sd == pytest.approx(np.median(sds))
    note = reach.lead_note(found)
    assert note.startswith("With 3 seeds and 9 pairs the first Holm step is p < 0.05/9")
    limit, least = scipy_stats.t.isf(0.05 / 9 / 2, 2), note.split("about ")[1].split()
    shift = float(least[0]) / told.sd * 3**0.5
    assert scipy_stats.nct(2, shift).sf(limit) == pytest.approx(0.8, abs=0.02)
    assert " points is found 4 times in 5 (" in note
    assert f"(median sd of the differences to the best: {told.sd:.1f} points)" in note


def test_the_lead_of_too_many_pairs_is_a_multiple(section):
    """33 students have 528 pairs: too many for a level of 0.0001; 32 have 496."""
    draw = np.random.default_rng(0)
    many = {f"s{k}": [*draw.normal(80, 1, 3)] for k in range(33)}
    note = reach.lead_note(section(**many))
    assert "3 seeds and 528 pairs the first Holm step is p < 0.05/528: only a" in note
    shift = float(note.split("more than ")[1].split()[0]) * 3**0.5
    limit = scipy_stats.t.isf(0.0001 / 2, 2)
    assert scipy_stats.nct(2, shift).sf(limit) == pytest.approx(0.8, abs=0.02)
    assert " times its sd is found 4 times in 5" in note
    del many["s0"]
    assert " points is found 4 times in 5" in reach.lead_note(section(**many))


def test_one_pair_is_one_test(section):
    found = section(a=[80, 81, 82], b=[80, 80, 83])
    assert "With 3 seeds and 1 pair the first Holm step is p < 0.05: only" in (
        reach.lead_note(found)
    )


@pytest.mark.parametrize(
    "values",
    [{"a": [80], "b": [81]}, {"a": [80, 81], "b": [81, 82]}, {"a": [80, 81]}, {}],
)
def test_no_lead_is_known_without_a_test(section, values):
    found = section(scratch=[None], **values)
    assert reach.lead(found) is None
    assert reach.lead_note(found) == reach.lead_needed(found) == ""


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
