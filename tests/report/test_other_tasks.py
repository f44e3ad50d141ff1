"""Numbers to predict: lower is better in every table, sentence and plot."""

from __future__ import annotations

import pytest

from kdbench.records import Headline
from kdbench.report.document import build
from kdbench.report.plots import section_plots
from kdbench.report.plots.curves import mean_curve
from kdbench.report.plots.tradeoff import tradeoff_plots

RMSE = Headline(name="rmse", title="RMSE", unit="m", gain_unit="m", better="lower")


@pytest.fixture
def errors(make):
    """Students at 60, 58 and 57 and their teacher at 50 metres, two seeds each."""

    def record(label, seed, value, **changes):
        words = {"system": "Bridges", "note": "Old."}
        run = {"teacher_runs": (make.teacher().id,), **words}
        measures = {"rmse": value, "mae": value / 2, "r2": 0.25, "latency_ms": 2.0}
        known = {
            "headline": RMSE,
            "measures": {**measures, "size_bytes": 1234, "parameters": 9},
            "curves": {"rmse": [value + 5, value]},
        }
        return make.record(label, seed, value, run=run, **{**known, **changes})

    students = [
        record(label, seed, value + seed)
        for label, value in (("scratch", 60.0), ("kd", 58.0), ("dml", 57.0))
        for seed in (0, 1)
    ]
    teacher = make.teacher().model_copy(
        update={"headline": RMSE, "measures": {"rmse": 50.0, "mae": 25.0}}
    )
    return build(make.results(teacher, *students))


def test_gains_are_positive_where_the_error_falls(errors):
    table = errors.parts[0].table("accuracy")
    names = [row.cells[0].value for row in table.rows]
    assert names == ["teacher", "scratch", "kd", "dml"]
    assert table.title == "Error"
    row = names.index("dml")
    assert table.cell(row, "rmse").text.startswith("57.50")
    assert table.cell(row, "rmse").best
    assert table.cell(row, "over_scratch").value == pytest.approx(3)
    assert table.cell(row, "over_kd").value == pytest.approx(1)
    assert table.cell(row, "gap").value == pytest.approx(100 * 3 / 10.5)
    assert table.cell(row, "mae").value == pytest.approx(28.75)
    assert table.cell(names.index("teacher"), "mae").value == 25
    assert "lower is better" in table.caption


def test_sentences_name_the_measure_and_the_lowest(errors):
    told = " ".join(errors.parts[0].sentences)
    assert told.startswith("Bridges. Old. On ")
    assert "the teacher reaches RMSE (lower is better) 50.00 m" in told
    assert "Lowest mean of the others: dml with 57.50" in told


def test_every_system_has_a_row_with_size_and_latency(errors):
    table = errors.overview
    assert [row.cells[2].value for row in table.rows] == [
        "teacher",
        "scratch",
        "kd",
        "dml",
    ]
    assert {row.cells[0].value for row in table.rows} == {"Bridges"}
    assert table.cell(3, "measure").text == "RMSE (m)"
    assert table.cell(3, "value").value == 57.5
    assert table.cell(3, "size_bytes").value == 1234
    assert table.cell(3, "latency_ms").value == 2.0
    assert table.cell(3, "latency_ms").text == "~2.00"  # in its own run
    assert "do not compare" in table.notes[0]


def test_no_systems_no_overview(make):
    assert build(make.standard()).overview is None


def test_a_student_timed_as_trained_has_a_row_for_each_teacher(errors):
    table = errors.parts[0].table("size")
    names = [row.cells[0].value for row in table.rows]
    assert names == ["big", "small by scratch", "small by kd", "small by dml"]
    assert any("as large and fast as what they learned" in n for n in table.notes)


def test_plots_turn_errors_so_that_better_is_up(errors):
    section = errors.parts[0].section
    assert mean_curve(section, "kd") == [-63.5, -58.5]
    plots = section_plots(section) + tradeoff_plots([section])
    for plot in plots:
        if plot.kind == "gains":  # differences have signs of their own
            continue
        figure = plot.draw()
        figure.canvas.draw()
        for axes in figure.axes:
            ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
            texts = [tick.get_text() for tick in ticks]
            assert not [t for t in texts if t.startswith(("-", "\N{MINUS SIGN}"))]


def test_one_diverged_run_does_not_coarsen_the_others(make, errors):
    students = errors.parts[0].section.records
    worst = students[-1].model_copy(update={"measures": {"rmse": 1e6}})
    table = build(make.results(*students[:-1], worst)).parts[0].table("accuracy")
    names = [row.cells[0].value for row in table.rows]
    assert table.cell(names.index("kd"), "rmse").text.startswith("58.50")
