"""Curves of training: their means and bands, and which of them are named."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from kdbench import stats
from kdbench.records import RMSE, TOP1
from kdbench.report.plots.curves import band, curve_plots, mean_curve
from kdbench.report.sections import sections

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from marking import draw, marks, only, texts


def curved(make, curves, **changes):
    records = [
        make.record(label, seed, curve[-1] or 1.0, curves={"top1": curve}, **changes)
        for label, seeds in curves.items()
        for seed, curve in enumerate(seeds)
    ]
    return only(sections(make.results(*records)))


def test_a_band_is_the_t_interval_of_each_epoch(make):
    seeds = [
        [10.0, 50.0, 80.0, 81.0],
        [20.0, 52.0, None, 83.0],
        [15.0, 51.0, 81.0, 82.0],
    ]
    section = curved(make, {"kd": seeds})
    assert mean_curve(section, "kd") == pytest.approx(
        [15.0, 51.0, math.nan, 82.0], nan_ok=True
    )
    for epoch, (low, high) in enumerate(band(section, "kd")):
        values = [seed[epoch] for seed in seeds]
        if None in values:
            assert math.isnan(low)
            assert math.isnan(high)
        else:
            found = stats.interval(values)
            assert (low, high) == (
                pytest.approx(found.mean - found.half_width),
                pytest.approx(found.mean + found.half_width),
            )


def test_no_band_for_one_seed_or_for_curves_of_other_length(make):
    section = curved(make, {"kd": [[1.0, 2.0, 3.0]], "a": [[1.0, 2.0], [3.0]]})
    assert band(section, "kd") == []
    assert band(section, "a") == []
    assert "No bands" in only(curve_plots(section)).caption


def test_bands_of_a_longer_training_are_of_its_last_epochs(make):
    longer = [[float(e + s) for e in range(9)] for s in (0, 2)]
    section = curved(make, {"kd": [[1.0, 2.0, 3.0, 4.0]] * 2, "scratch_longer": longer})
    ends = band(section, "scratch_longer")
    means = mean_curve(section, "scratch_longer")
    assert means == [6.0, 7.0, 8.0, 9.0]
    assert [sum(pair) / 2 for pair in ends] == pytest.approx(means)


def test_bands_of_errors_are_turned_too(make):
    records = [
        make.record(
            "kd",
            seed,
            1.0,
            headline=RMSE,
            measures={"rmse": 5.0},
            curves={"rmse": [9.0, 5.0 + seed]},
        )
        for seed in (0, 1)
    ]
    section = only(sections(make.results(*records)))
    (first, (low, high)) = band(section, "kd")
    assert first == (-9.0, -9.0)
    assert low < -5.5 < high < 5


def bands(axes):
    return [c.get_paths()[0].vertices[:, 1] for c in axes.collections]


@pytest.mark.parametrize(
    ("better", "ends"), [("higher", (0, 100)), ("lower", (-100, 0))]
)
def test_bands_of_percentages_end_at_0_and_100(make, better, ends):
    headline = TOP1.model_copy(update={"better": better})
    records = [
        make.record(
            label, s, 1.0, headline=headline, curves={"top1": [v, 10.0 * s, 90 + v]}
        )
        for label in ("kd", "a")
        for s, v in ((0, 3.0), (1, 9.0))
    ]
    plot = only(curve_plots(only(sections(make.results(*records)))))
    edges = np.array(band(only(sections(make.results(*records))), "kd"))
    assert (edges.min() < ends[0], edges.max() > ends[1]) == (True, True)
    axes = draw(plot).axes[0]
    for heights in bands(axes):
        assert (heights.min(), heights.max()) == ends
    assert "cut at 0 and 100%" in plot.caption


def test_a_band_that_would_cover_a_panel_is_left_out_of_it(make):
    kd = [[10.0, 60.0, 80.0, 80.1], [12.0, 61.0, 80.3, 80.2]]
    wild = [[10.0, 58.0, 78.0, 78.0], [12.0, 62.0, 82.0, 82.0]]
    section = curved(make, {"kd": kd, "wild": wild})
    plot = only(curve_plots(section))
    left, right = draw(plot).axes
    assert (len(bands(left)), len(bands(right))) == (2, 1)
    assert 57 < right.get_ylim()[0] < 60  # of the means, not of the bands
    low, high = np.array(band(section, "kd")).T
    edges = [list(line.get_ydata()) for line in left.lines]
    for edge in (low, high):
        assert list(np.clip(edge, 0, 100)) in edges
    assert "wider than a panel" in plot.caption


def test_only_named_strategies_have_bands_and_each_curve_has_words(make):
    curves = {
        name: [[50.0 + i, 60.0 + i], [51.0 + i, 60.5 + i]]
        for i, name in enumerate(("scratch", "kd", *"abcdef"))
    }
    section = curved(make, curves)
    figure = draw(only(curve_plots(section)))
    for axes in figure.axes:
        assert len(axes.collections) == 5  # scratch, kd and the three best
    assert {words.partition(":")[0] for words in marks(figure)} == set(curves)
    named = {t.strip() for t in texts(figure)} & set(curves)
    assert named == {"scratch", "kd", "d", "e", "f"}


def test_named_curves_differ_without_colour(make):
    curves = {name: [[50.0, 60.0 + i]] for i, name in enumerate("abc")}
    section = curved(make, {"scratch": [[1.0, 2.0]], "kd": [[1.0, 3.0]], **curves})
    left = draw(only(curve_plots(section))).axes[0]
    dashes = [str(line._dash_pattern) for line in left.lines]
    assert len(dashes) == len(set(dashes)) == 5
