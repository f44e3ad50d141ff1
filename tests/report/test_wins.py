"""Wins, ties and losses, pair by pair."""

from itertools import combinations

import numpy as np
from scipy import stats as scipy_stats

from kdbench import stats
from kdbench.records import Headline
from kdbench.report.sections import sections
from kdbench.report.wins import count, matrix_table, wins_table

RMSE = Headline(name="rmse", title="RMSE", unit="", gain_unit="", better="lower")


def cells(table, label):
    """Column key -> cell of the row of a label."""
    row = next(row for row in table.rows if row.cells[0].value == label)
    keys = [column.key for column in table.columns]
    return dict(zip(keys, row.cells, strict=True))


def brute(section, a, b):
    """Whether a is significantly better than b, and whether that was tested."""
    name = section.headline.name
    ours, theirs = section.values(a, name), section.values(b, name)
    common = sorted(ours.keys() & theirs.keys())
    if len(common) < 2:
        return False, False
    found = stats.paired([ours[s] for s in common], [theirs[s] for s in common])
    clear = found.p_value is not None and found.p_value < 0.05
    return clear and section.sign * found.mean > 0, True


def test_wins_are_those_of_the_paired_test(make):
    """Random values, failed runs, equal differences and errors, pair by pair."""
    rng = np.random.default_rng(2)
    settings = []
    for _ in range(4):
        own = {f"s{i}": list(rng.normal(70 + i, 1, 4).round(1)) for i in range(6)}
        wide = [10.1, 40.3, 70.7, 90.9]  # + 0.3 is rounded, to more than one number
        own |= {"wide": wide, "shifted": [v + 0.3 for v in wide]}
        own |= {"same": list(own["s1"])}
        own |= {"once": [75.0, None, None, None], "s2": [*own["s2"][:3], None]}
        settings.append(own)
    students = [
        record
        for pair, own in zip("abcd", settings, strict=True)
        for record in make.students(pair, own, RMSE if pair == "d" else None)
    ]
    found = sections(make.results(make.teacher(), *students))
    counted = count(found)
    place = {label: i for i, label in enumerate(counted.labels)}
    for a, b in combinations(counted.labels, 2):
        for x, y in ((a, b), (b, a)):
            expected = np.sum([brute(s, x, y) for s in found], axis=0)
            got = counted.wins[place[x], place[y]], counted.tested[place[x], place[y]]
            assert tuple(expected) == got, (x, y)
    assert counted.wins.any()
    assert counted.wins[place["shifted"]][place["wide"]] == 0  # no test is defined


def test_wins_against_kd_are_by_the_adjusted_p(make):
    """x is better than kd by p = 0.03 alone, not after Holm over three."""
    values = {
        "kd": [80.0, 80.0, 80.0],
        "x": [81.0, 81.5, 80.8],
        "y": [80.0, 81.0, 79.0],
        "z": [79.0, 80.0, 81.5],
    }
    p = scipy_stats.ttest_rel(values["x"], values["kd"]).pvalue
    assert 0.05 / 3 < p < 0.05
    table = wins_table(make.grid(values, values))
    x = cells(table, "x")
    assert x["kd_net"].text == "0 / 2 / 0"
    assert (x["kd_wins"].value, x["kd_ties"].value) == (0, 2)
    assert x["all_net"].text == "2 / 4 / 0"
    assert cells(table, "kd")["all_net"].text == "0 / 4 / 2"
    assert cells(table, "kd")["all_ties"].value == 4
    assert x["scratch_net"].text == "-"
    assert cells(table, "kd")["kd_net"].text == "-"
    assert "12 comparisons" in table.notes[0]
    assert "about 0.60 would be expected" in table.notes[0]


def test_one_seed_has_no_wins(make):
    found = make.grid({"kd": [80.0], "x": [90.0]}, {"kd": [80.0], "x": [90.0]})
    assert wins_table(found) is None
    assert matrix_table(found) is None


def test_equal_strategies_win_as_often_as_the_caption_says(make):
    rng = np.random.default_rng(3)
    settings = [{f"s{i}": rng.normal(70, 1, 5) for i in range(12)} for _ in range(16)]
    counted = count(make.grid(*settings))
    assert counted.tested.sum() == 2 * 16 * 66
    rate = counted.wins.sum() / (counted.tested.sum() / 2)
    assert 0.025 < rate < 0.08
    assert abs(counted.wins.sum() / counted.tested.sum() - 0.025) < 0.02


def test_the_win_matrix_is_whole_and_mirrored(make):
    first = {"kd": [83.0, 83.0, 85.0], "x": [84.0, 85.5, 86.0], "once": [80.0]}
    second = {"kd": [74.0, 73.0, 72.0], "x": [80.0, 79.0, 78.1], "once": [80.0, 79.0]}
    table = matrix_table(make.grid(first, second))
    found = {
        (row.cells[0].value, row.cells[1].value): [c.value for c in row.cells[2:]]
        for row in table.rows
    }
    assert found["x", "kd"] == [1, 1, 0]
    assert found["kd", "x"] == [0, 1, 1]
    assert sum(found["x", "once"]) == 1  # one common seed in the first setting
    assert len(found) == 6
