"""Mean ranks, groups within the critical difference, performance profiles."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from kdbench import stats
from kdbench.records import Headline
from kdbench.report.plots import ranks
from kdbench.report.plots.ranks import area, groups, rank_plots

RMSE = Headline(name="rmse", title="RMSE", unit="m", gain_unit="m", better="lower")

PROFILE = {
    "scratch": [70.0, 80.0, 60.0, 50.0],
    "kd": [72.0, 83.0, 61.0, 52.0],
    "a": [73.0, 82.0, 61.5, 52.0],
    "b": [72.5, 82.5, 60.5, 53.0],
    "c": [72.6, 82.6, 60.6, 52.6],
    "gone": [73.5, 10.0, 60.0, 50.0],
}


def test_profiles_are_the_share_of_settings_within_reach(look):
    found = look.settings(PROFILE)
    plot = rank_plots(found)[-1]
    assert (plot.kind, plot.stem) == ("profile", "overall-profile")
    figure = look.draw(plot)
    (axes,) = figure.axes
    best = [max(means[k] for means in PROFILE.values()) for k in range(4)]
    for label, means in PROFILE.items():
        line, _ = look.of(figure, f"{label}: the best")
        away = [top - mean for top, mean in zip(best, means, strict=True)]
        taus, shares = line.get_data()
        assert line.get_drawstyle() == "steps-post"
        for tau in (0.0, 0.55, 1.05, 2.05, 3.05):
            drawn_there = shares[np.searchsorted(taus, tau, side="right") - 1]
            within = 100 * np.mean([d <= tau + 1e-9 for d in away])
            assert drawn_there == pytest.approx(within), (label, tau)
    right = axes.get_xlim()[1]
    assert 3.5 < right < 20  # all of scratch, but not what collapsed
    assert "cut off" in plot.caption
    named = {text.get_text() for text in axes.get_legend().get_texts()}
    assert named >= {"scratch", "kd"}
    assert "gone" not in named
    dashes = {line._unscaled_dash_pattern for line in axes.get_legend().get_lines()}
    assert len(dashes) == len(named)  # told apart without colour


def test_area_is_the_mean_height_up_to_the_horizon():
    table = pd.DataFrame({"x": [1.0, 2.0, 9.0], "y": [3.0, 2.0, 2.0]})
    found = stats.profile(table)
    for label, away in (("x", [2.0, 0.0, 0.0]), ("y", [0.0, 0.0, 7.0])):
        for horizon in (1.0, 4.0, 10.0):
            exact = np.mean([max(0.0, horizon - d) / horizon for d in away])
            assert area(found, label, horizon) == pytest.approx(exact)


def test_profiles_need_three_settings_of_one_unit(look):
    two = {"kd": [70.0, 60.0], "a": [71.0, 61.0], "b": [72.0, 62.0]}
    percent = look.settings(two)
    metres = look.settings(two, headline=RMSE.model_copy(update={"name": "top1"}))
    kinds = [plot.kind for plot in rank_plots([*percent, *metres])]
    assert kinds == ["ranks"]


def test_ranks_of_few_settings_are_dots_without_a_test(look):
    values = {"kd": [70.0, 80.0], "a": [72.0, 79.0], "b": [71.0, 81.0]}
    (plot,) = rank_plots(look.settings(values))
    assert (plot.kind, plot.stem) == ("ranks", "overall-ranks")
    figure = look.draw(plot)
    axes = figure.axes[0]
    rows = [tick.get_text() for tick in axes.get_yticklabels()]
    assert rows == ["b", "a", "kd"]  # b: 2 and 1; a: 1 and 3; kd: 3 and 2
    for label, mean in (("b", 1.5), ("a", 2.0), ("kd", 2.5)):
        mark, words = look.of(figure, f"{label}: mean rank")
        assert look.at(mark) == (mean, rows.index(label))
        assert f"{mean:.2f} of 3, over 2 settings" in words
        assert look.filled(mark) == (label != "kd")
    low, high = axes.get_ylim()
    assert low > high  # the best on top
    left, right = axes.get_xlim()
    assert left > right > 0  # and to the right; there is no rank 0
    assert not axes.texts
    assert len(look.marks(figure)) == 3
    assert "without a test" in plot.caption
    assert "critical" not in plot.caption + plot.alt


def test_critical_difference_and_groups(look):
    values = {
        label: [70.0 + 2 * k + 0.3 * ((place * (k + 1)) % 3) for place in range(8)]
        for k, label in enumerate(("scratch", "kd", "a", "b", "c"))
    }
    found = look.settings(values)
    plot = rank_plots(found)[0]
    figure = look.draw(plot)
    axes, side = figure.axes
    difference = 2.728 * (5 * 6 / (6 * 8)) ** 0.5  # Demsar 2006, table 5
    (text,) = [t.get_text() for t in axes.texts]
    assert float(text.split()[-1]) == pytest.approx(difference, abs=0.006)
    (band,) = axes.patches
    ends = sorted(band.get_x() + band.get_width() * k for k in (0, 1))
    assert ends[1] == pytest.approx(1 + difference, abs=0.002)
    assert ends[0] <= 1
    spans = [tuple(line.get_ydata()) for line in side.lines]
    assert spans == [(-0.2, 2.2), (0.8, 3.2), (1.8, 4.2)]  # ranks 1 to 5, CD 2.16
    assert "Nemenyi" in plot.caption
    assert "Demsar" in plot.caption


def test_groups_are_the_longest_runs_within_the_difference():
    rng = np.random.default_rng(0)
    for _ in range(50):
        mean = dict(enumerate(rng.uniform(1, 9, size=8)))
        order = sorted(mean.values())
        close = [
            (i, j)
            for i, j in itertools.combinations(range(8), 2)
            if order[j] - order[i] < 2.5
        ]
        longest = [
            (i, j)
            for i, j in close
            if not any(a <= i and j <= b and (a, b) != (i, j) for a, b in close)
        ]
        assert groups(mean, 2.5) == longest


def test_group_lines_never_overlap():
    spans = [(0, 3), (1, 4), (3, 5), (4, 8), (9, 10)]
    columns = ranks._columns(spans)
    assert columns == [0, 1, 2, 0, 0]


def test_ranks_need_two_settings_and_three_strategies(look):
    three = {"kd": [70.0], "a": [71.0], "b": [72.0]}
    assert rank_plots(look.settings(three)) == []
    assert rank_plots(look.settings({"kd": [70.0, 60.0], "a": [71.0, 61.0]})) == []
    missing = {"kd": [70.0, 60.0], "a": [71.0, 61.0], "b": [72.0, None]}
    assert rank_plots(look.settings(missing)) == []


def test_many_ranks_leave_no_room_for_a_rank_below_one(look):
    values = {f"s{k:02d}": [70.0 + k, 70.0 + k] for k in range(40)}
    (plot,) = rank_plots(look.settings(values))
    figure = look.draw(plot)
    left, right = figure.axes[0].get_xlim()
    assert left > 40
    assert 0 < right < 1
