"""The sentences that open a report, and whether they are true."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from kdbench.records import Headline
from kdbench.report.findings import findings
from kdbench.report.sections import sections
from kdbench.report.words import summary

RMSE = Headline(name="rmse", title="RMSE", unit="", gain_unit="", better="lower")


@pytest.fixture
def told(make):
    """The sentences about settings "a", "b", ... with these values."""

    return lambda *settings: list(findings(make.grid(*settings)))


ONE = {
    "scratch": [80.0, 81.0, 82.0],
    "kd": [83.0, 83.0, 85.0],
    "best": [86.0, 86.1, 88.0],
    "second": [85.0, 85.2, 87.1],
    "alike": [80.0, 86.0, 85.0],
    "worse": [70.0, 70.1, 72.0],
}


def test_the_best_the_alike_and_the_worse(told):
    lead, limits = told(ONE)
    p = scipy_stats.ttest_rel(ONE["best"], ONE["kd"]).pvalue
    assert lead == (
        "On digits / a and 3 seeds, best beats plain kd by 3.03 ± 0.14 points "
        f"(p {'<0.001' if 3 * p < 0.001 else f'= {3 * p:.3f}'}, Holm-adjusted over "
        "4 strategies); 1 is better too (second); 1 strategy is not "
        "significantly different from kd; 1 is worse (worse)."
    )
    assert "not significant is not equal, and 3 seeds" in limits
    assert "one teacher checkpoint" in limits
    assert "likely to overstate" in limits


def test_it_does_not_repeat_the_summary_of_the_setting(make):
    section = sections(make.standard())
    assert not set(findings(section)) & set(summary(section[0]))


def test_nothing_beats_kd(told):
    lead, _ = told({k: ONE[k] for k in ("scratch", "kd", "alike")})
    assert lead.startswith(
        "On digits / a and 3 seeds, no strategy is shown to beat plain kd; the largest "
        "mean gain of those tested is that of alike, +0.00 ± 7.45 points (p = 1.00 n.s."
    )
    assert "1 strategy is not significantly different from kd; none is worse." in lead


def test_settings_are_averaged_by_seed(told):
    """`best` is told from kd by the mean over settings, in neither setting alone."""
    first = {"kd": [80.0, 81.0, 82.0], "best": [83.0, 82.0, 84.1]}
    second = {"kd": [80.0, 81.0, 82.0], "best": [81.1, 84.0, 83.8]}
    lead, each, scratch, runs, limits = told(first, second)
    gains = np.mean([np.subtract(s["best"], s["kd"]) for s in (first, second)], axis=0)
    expected = scipy_stats.ttest_1samp(gains, 0)
    half = expected.confidence_interval().high - gains.mean()
    for own in (first, second):
        assert scipy_stats.ttest_rel(own["best"], own["kd"]).pvalue > 0.05
    shown = "p <0.001" if expected.pvalue < 0.001 else f"p = {expected.pvalue:.3f}"
    assert lead == (
        f"On 2 settings and 3 seeds, best beats plain kd by {gains.mean():.2f} ± "
        f"{half:.2f} points on average ({shown}, Holm-adjusted over 1 strategy); none "
        "is worse."
    )
    assert each.startswith(
        "Setting by setting, 1 strategy was tested against plain kd in 2 settings: "
        "none is ever told from it (paired t-tests over seeds, Holm-adjusted over"
    )
    assert scratch == "Plain kd shares no finished seed with scratch in any setting."
    assert runs == (
        "This rests on 12 runs of 2 strategies, baselines included (teachers "
        "and compressed students are not counted), in 2 settings; all finished."
    )
    assert "not equal, and 3 seeds show" in limits
    assert "overstate" not in limits  # there is one gain


def test_how_often_in_settings(told):
    """Better in 2 of 3, worse in 2 of 3, in one only, in none."""
    kd = [80.0, 80.5, 81.0]
    up, down = [85.0, 85.6, 86.0], [70.0, 70.6, 71.0]
    flat = [80.0, 81.5, 80.0]
    settings = [
        {"kd": kd, "up": up, "down": down, "once": up, "flat": flat},
        {"kd": kd, "up": up, "down": down, "once": flat, "flat": flat},
        {"kd": kd, "up": flat, "down": flat, "once": flat, "flat": flat},
    ]
    each = told(*settings)[1]
    assert "4 strategies were tested against plain kd in 3 settings" in each
    assert (
        "in 3 settings: 1 is significantly better in more than half of them (up 2 of "
        "3), 1 is significantly worse in more than half of them (down 2 of 3), 1 is "
        "told from it in fewer, 1 is never told from it (paired"
    ) in each
    rare = told(*[{k: own[k] for k in ("kd", "once", "flat")} for own in settings])[1]
    assert (
        "in 3 settings: none is significantly better or worse in more than half of "
        "them, 1 is told from it in fewer, 1 is never told from it (paired"
    ) in rare
    often = told(*[{k: own[k] for k in ("kd", "up", "flat")} for own in settings])[1]
    assert "them (up 2 of 3), 1 is never told from it (paired" in often


def test_kd_itself(told):
    """Better than scratch in one of two settings; the mean over both."""
    first = {"scratch": [70.0, 71.0, 72.0], "kd": [80.0, 81.1, 82.0]}
    second = {"scratch": [80.0, 81.0, 82.0], "kd": [80.0, 83.0, 81.0]}
    found = told(first, second)
    assert found[0] == (
        "On 2 settings no other strategy shares a finished seed with plain kd in all "
        "of them, so there is no mean gain to tell."
    )
    gains = [np.subtract(own["kd"], own["scratch"]) for own in (first, second)]
    expected = scipy_stats.ttest_1samp(np.mean(gains, axis=0), 0)
    mean = np.mean(gains)
    half = expected.confidence_interval().high - mean
    assert (
        "Plain kd against scratch, tested in 2 settings: significantly better in 1, "
        f"worse in 0; mean gain over 2 settings: +{mean:.2f} ± {half:.2f} points "
        f"(p = {expected.pvalue:.3f}, Holm-adjusted over 1 strategy)."
    ) in found


def test_one_seed_is_refused_in_words(told):
    one = {"scratch": [80.0], "kd": [83.0], "x": [84.0], "y": [85.5]}
    lead, limits = told(one)
    assert lead == (
        "On digits / a and 1 seed no difference from plain kd could be tested (a test "
        "needs two seeds); the largest mean gain over it is that of y, +2.50 points."
    )
    assert limits.startswith("Limits: with one seed no difference can be told from ")
    both = told(one, one)
    assert "In no setting could a difference from plain kd be tested." in both
    assert any(
        s.startswith(
            "Plain kd against scratch: could be tested in no setting; mean gain over 2 "
            "settings: +3.00 points."
        )
        for s in both
    )
    assert not any("p =" in s or "±" in s or "significant" in s for s in both)


def test_differences_all_alike_are_refused_in_words(told):
    lead, _ = told({"kd": [80.0, 81.0], "x": [82.0, 83.0]})
    assert "could be tested (their differences are the same in every seed)" in lead


def test_what_could_not_be_tested_is_counted(told):
    lead, _ = told({**ONE, "once": [90.0, None, None]})
    assert lead.endswith("1 is worse (worse); 1 could not be tested.")
    assert "best beats" in lead
    assert "1 to 3 seeds" in lead
    assert "; the largest mean gain is that of once, +7.00 points, not tested; " in lead


def test_a_larger_gain_that_is_not_significant_is_not_hidden(told):
    """best: +3 ± 0.1; wild: +10 ± 25."""
    lead, _ = told({**ONE, "wild": [83.0, 93.0, 105.0]})
    assert "best beats plain kd by 3.03" in lead
    assert (
        "; the largest mean gain is that of wild, +10.00 ± 24.84 points, not sig"
        in lead
    )
    assert "largest" not in told(ONE)[0]


@pytest.mark.parametrize("settings", [1, 2])
def test_no_kd(told, settings):
    found = told(*[{"scratch": [80.0, 81.0], "x": [84.0, 85.5]}] * settings)
    place = "digits / a" if settings == 1 else "any of the 2 settings"
    assert found[0] == (
        f"There is no result of plain kd on {place}: no strategy can be compared with "
        "it."
    )
    assert not any("beat" in s for s in found)


def test_kd_in_some_settings(told):
    without = {"scratch": [80.0, 81.0], "x": [84.0, 85.5]}
    found = told(ONE, ONE, without)
    assert found[0].startswith("On 2 of 3 settings (Top-1) and 3 seeds, best beats")
    alone = told(ONE, without)
    assert alone[0].startswith("Setting by setting, 4 strategies were tested")
    assert "in 1 setting:" in alone[0]


def test_different_seeds(told):
    """Two seeds in common, then none."""
    moved = {k: dict(enumerate(v, start=1)) for k, v in ONE.items()}
    assert told(ONE, moved)[0].startswith("On 2 settings and 2 seeds in common, ")
    apart = {k: dict(enumerate(v, start=5)) for k, v in ONE.items()}
    found = told(ONE, apart)
    assert "no other strategy shares a finished seed with plain kd in all" in found[0]
    assert "4 strategies were tested against plain kd in 2 settings" in found[1]


def test_errors_fall(make):
    errors = {"kd": [2.0, 2.4, 2.2], "x": [1.5, 1.91, 1.7], "y": [3.0, 3.5, 3.2]}
    students = make.students("r", errors, RMSE)
    lead, _ = findings(sections(make.results(make.teacher(), *students)))
    assert "x beats plain kd by 0.497 ± 0.014 of RMSE" in lead
    assert "1 is worse (y)" in lead


def test_headlines_that_cannot_be_averaged(make):
    errors = {"kd": [2.0, 2.4, 2.2], "x": [1.5, 1.91, 1.7]}
    students = [
        *make.students("a", ONE),
        *make.students("r", errors, RMSE, dataset="bridges"),
    ]
    found = list(findings(sections(make.results(make.teacher(), *students))))
    assert found[0].startswith("Setting by setting, 5 strategies were tested")
    assert not any("on average" in s or "mean gain" in s for s in found)


@pytest.mark.parametrize("settings", [1, 2])
def test_all_failed(told, settings):
    [only] = told(*[{"kd": [None, None], "x": [None]}] * settings)
    assert only.startswith("No student has a result on ")


def test_nothing_at_all(make):
    assert list(findings(sections(make.results()))) == []
    assert list(findings(sections(make.results(make.teacher())))) == []


def test_failed_and_skipped_runs_are_counted(make):
    lost = {"kd": [80.0, 81.0], "x": [None, None], "y": [82.0, None]}
    students = make.students("a", lost) + make.students("b", {"kd": [80.0, 82.0]})
    skipped = [
        r.model_copy(update={"status": "skipped"})
        for r in make.students("b", {"x": [None]})
    ]
    found = sections(make.results(make.teacher(), *students, *skipped))
    assert (
        "This rests on 9 runs of 3 strategies, baselines included (teachers "
        "and compressed students are not counted), in 2 settings; 3 failed and 1 was "
        "skipped (x: 3, y: 1)."
    ) in list(findings(found))


@pytest.mark.parametrize(
    ("status", "words"),
    [("skipped", "; 3 were skipped (at: 3)."), ("failed", "; 3 failed (at: 3).")],
)
def test_what_did_not_happen_is_not_counted(make, status, words):
    students = [make.students(pair, {"kd": [80.0, 81.0]}) for pair in "ab"]
    lost = [
        r.model_copy(update={"status": status})
        for r in make.students("a", {"at": [None] * 3})
    ]
    found = sections(make.results(make.teacher(), *students[0], *students[1], *lost))
    [runs] = [s for s in findings(found) if s.startswith("This rests")]
    assert runs.endswith(f"in 2 settings{words}")


def test_compressed_students_are_no_strategies(make):
    small = [
        make.record("kd/int8", seed, 99.0, run={"compression": "int8", "pair": "a"})
        for seed in (0, 1, 2)
    ]
    students = make.students("a", ONE) + make.students("b", ONE)
    found = list(findings(sections(make.results(make.teacher(), *small, *students))))
    assert not any("int8" in s for s in found)
    assert any("36 runs of 6 strategies" in s for s in found)


def test_several_teachers_are_not_called_one(make):
    other = make.teacher(91.0).model_copy(update={"id": "other"})
    runs = [
        make.record("kd", seed, 80.0 + seed, run={"teacher_runs": (teacher,)})
        for seed, teacher in enumerate((make.teacher().id, other.id))
    ]
    found = list(findings(sections(make.results(make.teacher(), other, *runs))))
    assert found
    assert not any("one teacher checkpoint" in s for s in found)
