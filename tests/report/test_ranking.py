"""Ranks and profiles over settings, recomputed by hand."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from kdbench import stats
from kdbench.report.ranking import (
    curve_table,
    left_out,
    profile_table,
    ranks_table,
    scores,
)

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


def cells(table, label):
    """Column key -> cell of the row of a label."""
    row = next(row for row in table.rows if row.cells[0].value == label)
    keys = [column.key for column in table.columns]
    return dict(zip(keys, row.cells, strict=True))


def test_scores_hold_complete_cases_only(two):
    found = scores(two)
    assert list(found.index) == ["digits / a", "digits / b"]
    assert list(found.columns) == ["half", "kd", "scratch", "x"]
    assert found.loc["digits / b", "x"] == 75.0
    assert left_out(two) == ["lost"]
    assert scores([]).empty


def test_mean_ranks_and_who_is_not_ranked(two):
    table = ranks_table(two)
    order = [(row.cells[0].value, row.cells[1].value) for row in table.rows]
    assert order == [("x", 1.0), ("half", 2.5), ("kd", 2.5), ("scratch", 4.0)]
    shown = [row.cells[0].text for row in table.rows]
    assert shown == ["x", "half*", "kd", "scratch"]
    assert cells(table, "half")["digits-b"].value == 3.0
    told = " ".join(table.notes)
    assert stats.rank(scores(two)).reason in table.notes
    assert "Not ranked, a strategy without a result in every setting: lost." in told
    assert "* not all runs finished" in told


def test_friedman_and_the_critical_difference(make):
    """Eight settings in which x is always best and y always worst."""
    rng = np.random.default_rng(1)
    settings = [
        {
            "scratch": rng.normal(70, 1, 2),
            "kd": rng.normal(70, 1, 2),
            "x": [80.0, 81.0],
            "y": [60.0, 61.0],
        }
        for _ in range(8)
    ]
    found = make.grid(*settings)
    table = ranks_table(found)
    means = [[np.mean(own[k]) for own in settings] for k in settings[0]]
    p = scipy_stats.friedmanchisquare(*means).pvalue
    told = " ".join(table.notes)
    assert p < 0.001
    assert "over 8 settings and 4 strategies: p <0.001" in told
    assert "critical difference at 0.05, adjusted for all pairs: 1.66" in told
    # Demsar 2006, table 5: q = 2.569 for 4 strategies, times sqrt(4 * 5 / (6 * 8))
    assert cells(table, "x")["mean_rank"].best
    close = {k: cells(table, k)["mean_rank"].near for k in ("kd", "scratch", "y")}
    ranks = stats.rank(scores(found)).mean
    assert close == {k: ranks[k] - 1 < 2.569 * (20 / 48) ** 0.5 for k in close}
    assert not close["y"]
    assert "errs on the safe side" in told
    assert "Demsar (2006) advises more than 10" in told
    more = " ".join(ranks_table(make.grid(*settings, *settings[:3])).notes)
    assert "over 11 settings" in more
    assert "Demsar" not in more


def test_the_profile_counts_settings_within_a_distance(make):
    settings = [
        {"kd": [80.0, 80.0], "x": [80.1, 80.1], "y": [70.0, 70.0]},
        {"kd": [80.0, 80.0], "x": [79.5, 79.5], "y": [70.0, 70.0]},
        {"kd": [80.0, 80.0], "x": [80.0, 80.0], "y": [79.0, 79.0]},
        {"kd": [80.0, 80.0], "x": [70.0, 70.0], "y": [79.9, 79.9]},
    ]
    table = profile_table(make.grid(*settings))
    shares = {
        row.cells[0].value: [cell.value for cell in row.cells[1:]] for row in table.rows
    }
    assert shares == {
        "kd": [75.0, 100.0, 100.0, 100.0, 100.0],
        "x": [50.0, 50.0, 50.0, 75.0, 75.0],
        "y": [0.0, 25.0, 25.0, 25.0, 50.0],
    }
    assert profile_table(make.grid(*settings[:2])) is None


def test_the_whole_profile_is_data(make):
    settings = [{"kd": [80.0], "x": [79.0]}, {"kd": [80.0], "x": [82.0]}]
    curve = curve_table(make.grid(*settings))
    steps = [tuple(cell.value for cell in row.cells) for row in curve.rows]
    assert steps == [
        ("kd", 0.0, 0.5),
        ("kd", 2.0, 1.0),
        ("x", 0.0, 0.5),
        ("x", 1.0, 1.0),
    ]
