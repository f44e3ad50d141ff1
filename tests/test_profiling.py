"""The table of `kdbench run --profile`: shares of the loop that add up."""

from __future__ import annotations

import pytest

from kdbench.profiling import Profile
from kdbench.records import Recipe, Run

TIMES = {
    "own": 60.0,
    "student": 20.0,
    "loss": 5.0,
    "backward": 20.0,
    "optimiser": 5.0,
    "data": 8.0,
    "data_share": 2.0,
    "teacher": 30.0,
    "teacher_share": 28.0,
    "evaluation": 5.0,
    "loop_rest": 5.0,
}


def run(label):
    return Run(
        dataset="digits",
        pair="p",
        teachers=(),
        students=("small",),
        strategy=label,
        label=label,
        params={},
        seed=0,
        recipe=Recipe(),
        teacher_runs=(),
        code={},
    )


def cells(*times):
    """The table's first row by heading."""
    profile = Profile()
    for label, parts in zip("abc", times, strict=False):
        profile.add(run(label), {"": parts})
    [table] = profile.tables()
    return {column.header: next(iter(column.cells)) for column in table.columns}


def test_shares_of_the_loop():
    """Own time, shares of what all use, the evaluation and the loop's rest: 100 s."""
    shown = cells(TIMES)
    assert shown.pop("Strategy") == "a"
    assert shown.pop("Phase") == ""
    assert shown.pop("Seconds") == "100.0"
    assert shown == {
        "Data": "2%",
        "Teacher": "28%",
        "Student": "20%",
        "Loss": "5%",
        "Backward": "20%",
        "Optimiser": "5%",
        "Rest": "15%",
        "Test": "5%",
    }


@pytest.mark.parametrize(
    ("part", "heading"),
    [("adapters", "Adapters"), ("graph", "Graph"), ("checkpoint", "Saving")],
)
def test_what_somebody_has_is_shown_for_all(part, heading):
    shown = cells(TIMES, TIMES | {part: 1.0})
    assert shown[heading] in ("0%", "1%")
