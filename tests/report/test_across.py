"""Tables over settings: averages, ranks, wins and profiles, recomputed by hand."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from kdbench import stats
from kdbench.records import Headline
from kdbench.report.across import across_tables, data_tables
from kdbench.report.averages import averages
from kdbench.report.ranking import scores
from kdbench.report.sections import sections
from kdbench.report.tables import CSV_ONLY

RMSE = Headline(name="rmse", title="RMSE", unit="", gain_unit="", better="lower")


FIRST = {
    "scratch": [80.0, 81.0, 82.0],
    "kd": [83.0, 83.0, 85.0],
    "x": [84.0, 85.5, 86.0],
    "half": [84.5, None, None],
    "lost": [70.0, 71.0, 72.0],
}
SECOND = {
    "scratch": [70.0, 71.0, 72.0],
    "kd": [74.0, 73.0, 72.0],
    "x": [75.0, 74.0, 76.0],
    "half": [74.5, 70.0, 71.0],
    "lost": [None, None, None],
}


@pytest.fixture
def two(make):
    return make.grid(FIRST, SECOND)


def tables(found):
    return {table.key: table for table in across_tables(found)}


def cells(table, label):
    """Column key -> cell of the row of a label."""
    row = next(row for row in table.rows if row.cells[0].value == label)
    keys = [column.key for column in table.columns]
    return dict(zip(keys, row.cells, strict=True))


def test_rows_of_the_matrix_stand_in_order(two):
    table = tables(two)["matrix"]
    names = [row.cells[0].value for row in table.rows]
    assert names == ["teacher", "scratch", "kd", "x", "half", "lost"]
    assert [row.kind for row in table.rows] == [*["reference"] * 3, *["plain"] * 3]


def test_the_matrix_holds_mean_half_width_and_n(two):
    x = cells(tables(two)["matrix"], "x")
    own = stats.interval(SECOND["x"])
    assert (x["digits-b"].value, x["digits-b_n"].value) == (75.0, 3)
    assert x["digits-b_half_width"].value == pytest.approx(own.half_width)
    assert x["digits-b"].text == "75.00 ± 2.48"
    assert x["digits-b"].best
    assert not cells(tables(two)["matrix"], "kd")["digits-b"].best
    teacher = cells(tables(two)["matrix"], "teacher")
    assert (teacher["digits-a"].text, teacher["digits-a_n"].value) == ("90.00", 1)
    assert teacher["over_kd"].value is None


def test_mean_gains_are_those_of_the_seeds_means(two):
    """Each seed's mean over both settings is one value of the paired t-test."""
    table = tables(two)["matrix"]
    x, kd, half = (
        np.mean([FIRST[k], SECOND[k]], axis=0) for k in ("x", "kd", "scratch")
    )
    expected = scipy_stats.ttest_rel(x, kd)
    high = expected.confidence_interval(0.95).high
    found = cells(table, "x")
    assert found["over_kd"].value == pytest.approx(np.mean(x - kd))
    assert found["over_kd_half_width"].value == pytest.approx(high - np.mean(x - kd))
    assert found["p_kd"].value == pytest.approx(expected.pvalue)  # the only one tested
    assert found["over_kd_n"].value == 3
    against = [scipy_stats.ttest_rel(v, half).pvalue for v in (kd, x)]
    assert found["p_scratch"].value == pytest.approx(2 * min(against))


def test_gap_closed_is_that_of_the_sums(two):
    found = cells(tables(two)["matrix"], "kd")
    gains = (np.mean(FIRST["kd"]) - 81) + (np.mean(SECOND["kd"]) - 71)
    assert found["gap"].value == pytest.approx(100 * gains / ((90 - 81) + (90 - 71)))


def test_a_setting_whose_teacher_is_worse_has_no_gap(make):
    strong = {"scratch": [95.0, 96.0], "kd": [97.0, 98.0]}
    found = averages(make.grid(FIRST, SECOND, strong))
    assert [s.pair for s in found.with_gap] == ["a", "b"]
    assert found.found["kd"].gap == averages(make.grid(FIRST, SECOND)).found["kd"].gap


def test_mean_gains_are_adjusted_over_the_strategies(make):
    """Of p = a < b over two strategies Holm makes 2a and max(2a, b)."""
    kd = [80.0, 81.0, 82.0]
    values = {"kd": kd, "x": [82.0, 82.9, 84.0], "y": [80.0, 82.5, 83.0]}
    found = averages(make.grid(values, values)).found
    a, b = (scipy_stats.ttest_rel(values[k], kd).pvalue for k in ("x", "y"))
    assert found["x"].p_kd == pytest.approx(2 * a)
    assert found["y"].p_kd == pytest.approx(max(2 * a, b))
    assert found["kd"].p_kd is None


def test_averages_are_all_of_the_same_settings(two):
    """`half` shares one seed with kd in both settings, `lost` none."""
    table = tables(two)["matrix"]
    half, lost = cells(table, "half"), cells(table, "lost")
    assert half["over_kd"].value == pytest.approx((1.5 + 0.5) / 2)
    assert (half["over_kd"].text, half["p_kd"].text) == ("+1.00", "-")
    assert half["over_kd_n"].value == 1
    assert half["digits-a"].text == "84.50 (1 of 3)"
    assert [lost[key].text for key in ("digits-b", "over_kd", "gap")] == [
        "failed",
        "-",
        "-",
    ]
    assert any("one seed only" in note for note in table.notes)


def test_a_setting_without_kd_is_in_no_mean_over_kd(make):
    third = {"scratch": [60.0, 62.0], "x": [90.0, 91.0]}
    found = averages(make.grid(FIRST, SECOND, third))
    assert [s.pair for s in found.with_kd] == ["a", "b"]
    gains = np.subtract(FIRST["x"], FIRST["kd"]), np.subtract(SECOND["x"], SECOND["kd"])
    assert found.found["x"].over_kd.mean == pytest.approx(np.mean(gains))
    assert found.found["x"].over_scratch.n == 2  # seed 2 is missing in the third


def test_without_a_common_seed_there_is_no_average(make):
    moved = {k: dict(enumerate(v, start=7)) for k, v in SECOND.items()}
    table = tables(make.grid(FIRST, moved))["matrix"]
    assert "over_kd" not in cells(table, "x")
    assert any("so no gain could be averaged" in note for note in table.notes)


def test_errors_and_percentages_are_not_averaged(make):
    errors = {"scratch": [3.0, 3.2], "kd": [2.0, 2.4], "x": [2.6, 2.9]}
    other = make.students("r", errors, RMSE, dataset="bridges")
    students = make.students("a", FIRST) + make.students("b", SECOND)
    found = sections(make.results(make.teacher(), *students, *other))
    table = tables(found)["matrix"]
    assert table.title == "Headlines by setting"
    assert cells(table, "kd")["bridges-r"].best
    assert not cells(table, "x")["bridges-r"].best
    x = averages([s for s in found if s.dataset == "digits"]).found["x"]
    assert cells(table, "x")["over_kd"].value == x.over_kd.mean
    assert any("1 setting of another headline" in note for note in table.notes)
    assert scores(found).loc["bridges / r", "kd"] == pytest.approx(-2.2)


def test_errors_of_two_datasets_are_not_averaged(make):
    errors = {"scratch": [3.0, 3.2], "kd": [2.0, 2.4], "x": [2.6, 2.9]}
    both = [
        record
        for dataset in ("bridges", "roads")
        for record in make.students("r", errors, RMSE, dataset=dataset)
    ]
    table = tables(sections(make.results(make.teacher(), *both)))["matrix"]
    assert not {"over_kd", "gap"} & {column.key for column in table.columns}


def test_gains_of_errors_are_positive_where_they_fall(make):
    errors = {"scratch": [3.0, 3.2], "kd": [2.0, 2.4], "x": [1.5, 1.8]}
    both = [r for pair in "rs" for r in make.students(pair, errors, RMSE)]
    found = sections(make.results(make.teacher(), *both))
    assert averages(found).found["x"].over_kd.mean == pytest.approx(0.55)


def test_nothing_over_one_setting(make):
    found = make.grid(FIRST)
    assert not [*across_tables(found), *data_tables(found)]
    assert not [*across_tables([]), *data_tables([])]


def test_one_seed_is_not_tested(make):
    found = make.grid({"kd": [80.0], "x": [90.0]}, {"kd": [80.0], "x": [90.0]})
    assert set(tables(found)) == {"matrix", "ranks"}
    assert {table.key for table in data_tables(found)} == {"standings", "profile-curve"}
    assert cells(tables(found)["matrix"], "x")["p_kd"].text == "-"


def test_a_variant_that_stands_for_kd_once_is_no_reference(make):
    """`kd[t]` is the only kd of the second setting, and one of two in the first."""
    first = {"kd": [80.0, 81.0], "kd[t]": [82.0, 83.5]}
    found = make.grid(first, {"kd[t]": [80.0, 81.0]})
    rows = tables(found)["matrix"].rows
    kinds = {row.cells[0].value: row.kind for row in rows}
    assert kinds == {"teacher": "reference", "kd": "reference", "kd[t]": "plain"}


def test_compressed_students_stay_out(make):
    small = make.record("kd/int8", 0, 99.0, run={"compression": "int8", "pair": "a"})
    students = make.students("a", FIRST) + make.students("b", SECOND)
    found = sections(make.results(make.teacher(), small, *students))
    assert "kd/int8" not in averages(found).found
    shown = {
        str(c.value) for t in across_tables(found) for r in t.rows for c in r.cells
    }
    assert "kd/int8" not in shown
    assert "kd/int8" not in scores(found).columns
    long = next(t for t in data_tables(found) if t.key == "standings")
    rows = [{c.value for c in row.cells} for row in long.rows]
    assert sum({"a", "kd/int8", "int8", 99.0} <= row for row in rows) == 1


def test_no_student_and_no_common_label(make):
    empty = make.grid({"kd": [None]}, {"kd": [None], "x": [None]})
    assert set(tables(empty)) == {"matrix"}
    assert [row.kind for row in tables(empty)["matrix"].rows][1:] == ["missing"] * 2
    apart = make.grid({"a": [1.0, 2.0]}, {"b": [1.0, 2.0]})
    assert set(tables(apart)) == {"matrix"}
    assert {t.key for t in data_tables(apart)} == {"standings"}


def test_settings_go_first_where_space_is_short(two):
    columns = tables(two)["matrix"].columns
    levels = {column.key: column.level for column in columns}
    assert 0 < levels["digits-a"] < levels["digits-b"] < CSV_ONLY
    assert levels["over_kd"] == 0
    assert levels["digits-a_n"] == CSV_ONLY
