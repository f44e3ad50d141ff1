"""Accuracy of each strategy: its mark, its interval, and room for all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kdbench import stats
from kdbench.report.plots.accuracy import accuracy_plots
from kdbench.report.plots.gains import gain_plots
from kdbench.report.plots.orientation import row_of
from kdbench.report.sections import sections

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from marking import draw, mark, only, texts


def test_a_mark_is_the_mean_with_its_interval(make):
    section = only(sections(make.standard()))
    figure = draw(only(accuracy_plots(section)))
    line = mark(figure, "better: ")
    half = stats.interval([84.0, 85.5, 86.0]).half_width
    mean = (84.0 + 85.5 + 86.0) / 3
    assert list(line.get_xdata()) == pytest.approx([mean - half, mean, mean + half])
    assert line.get_markevery() == [1]
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows == ["scratch", "kd", "better"]
    assert mark(figure, "teacher big: 90.00 %, n = 1").get_xdata()[0] == 90.0


def test_one_seed_has_no_bar_and_the_caption_says_so(make):
    section = only(sections(make.results(*make.strategy("kd", [82.0]))))
    plot = only(accuracy_plots(section))
    assert set(mark(draw(plot), "kd: ").get_xdata()) == {82.0}
    assert "one seed" in plot.caption
    assert "interval is unknown" in plot.caption
    assert "95%" not in plot.caption
    assert "Hollow: kd." in plot.caption


def test_a_collapsed_run_is_an_arrow_with_its_number(make):
    values = {"scratch": 90.0, "kd": 91.0, "a": 92.0, "b": 91.5, "lost": 10.0}
    records = [
        r
        for k, v in values.items()
        for r in make.strategy(k, [v, v + 0.5], test_items=300)
    ]
    plot = only(accuracy_plots(only(sections(make.results(*records)))))
    figure = draw(plot)
    arrow = mark(figure, "lost: 10.2 ")
    assert arrow.get_marker() == "<"
    assert figure.axes[0].get_xlim()[0] == arrow.get_xdata()[0] > 80
    assert "10.2" in texts(figure)  # as many digits as in the tables
    assert "An arrow" in plot.caption


def test_compressed_students_stand_apart_at_the_foot(make):
    run = {"compression": "half", "source": "x", "teacher_runs": (make.teacher().id,)}
    small = [make.record("kd/half", s, 99.0, run=run) for s in (0, 1)]
    section = only(sections(make.results(*make.standard().records, *small)))
    plot = only(accuracy_plots(section))
    rows = [t.get_text() for t in draw(plot).axes[0].get_yticklabels()]
    assert rows == ["kd/half", "scratch", "kd", "better"]
    assert "compressed" in plot.caption


@pytest.mark.parametrize("rows", [1, 24, 55])
def test_a_forest_plot_fits_a_page(rows):
    inches, points = row_of(rows)
    assert 1.2 + rows * inches <= 9.3
    assert points <= 72 * inches * 0.75


def test_55_strategies_fit_a_page(make):
    values = {"scratch": 80.0, "kd": 81.0} | {f"s{k}": 82.0 + k / 9 for k in range(53)}
    section = only(
        sections(
            make.results(
                *(r for k, v in values.items() for r in make.strategy(k, [v, v + 0.5]))
            )
        )
    )
    for plots in (accuracy_plots, gain_plots):
        assert draw(only(plots(section))).get_figheight() <= 9.5
