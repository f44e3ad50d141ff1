"""Accuracy against what a model costs: marks in their places, and the front."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from kdbench.report.plots.front import front
from kdbench.report.plots.tradeoff import tradeoff_plots
from kdbench.report.sections import sections

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from marking import draw, mark, marks, texts, the


def test_the_front_is_what_nothing_dominates():
    rng = np.random.default_rng(3)
    for _ in range(200):
        points = [(int(x), int(y)) for x, y in rng.integers(1, 7, (9, 2))]
        free = [
            i
            for i, (x, y) in enumerate(points)
            if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)
        ]
        found = front(points)
        assert sorted(found) == free
        assert [points[i] for i in found] == sorted(points[i] for i in free)


@pytest.fixture
def sized(make):
    """A teacher of 4000 parameters and students of 1000."""
    sizes = {"parameters": 1000.0, "macs": 20_000.0, "size_bytes": 4000.0}
    values = {"scratch": [80.0, 82.0], "kd": [83.0, 85.0], "best": [88.0, 88.0]}
    students = [
        record.model_copy(update={"measures": record.measures | sizes})
        for label, seeds in values.items()
        for record in make.strategy(label, seeds)
    ]
    speed = [make.speed("big", 4.0), make.speed("small", 1.5)]
    return make.results(make.teacher(), *students, speed=speed)


def test_each_cost_has_its_file_and_names_its_front(sized):
    plots = tradeoff_plots(sections(sized))
    assert [(plot.stem, plot.title) for plot in plots] == [
        ("overall-digits-latency", "digits: accuracy against latency"),
        ("overall-digits-size", "digits: accuracy against parameters"),
        ("overall-digits-macs", "digits: accuracy against MACs"),
    ]
    for plot in plots:
        assert "small by best; big (teacher)." in plot.caption
        figure = draw(plot)
        assert list(
            mark(figure, "best: 88.00 ± 0.00 %, n = 2; small, ").get_ydata()
        ) == [88]
        assert list(mark(figure, "teacher: 90.00 %, n = 1; big, ").get_ydata()) == [90]
    latency = draw(plots[0])
    assert list(mark(latency, "kd: 84.00 ").get_xdata()) == [1.5]
    assert any(words.endswith("small, 1.50 ms") for words in marks(latency))


def test_the_front_is_drawn_through_its_members(sized):
    axes = draw(the(tradeoff_plots(sections(sized)), "size")).axes[0]
    (step,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert list(step.get_xdata()) == [1000, 4000, axes.get_xlim()[1]]
    assert list(step.get_ydata()) == [88, 90, 90]


def test_macs_only_where_all_are_known(sized):
    last = sized.records[-1]
    unknown = last.model_copy(update={"measures": last.measures | {"macs": None}})
    sized.records[-1] = unknown
    stems = [plot.stem for plot in tradeoff_plots(sections(sized))]
    assert stems == ["overall-digits-latency", "overall-digits-size"]


def test_a_compressed_student_is_weighed_in_bytes(make, sized):
    run = {"compression": "half", "source": "x", "teacher_runs": (make.teacher().id,)}
    sizes = {"parameters": 1000.0, "macs": 20_000.0, "size_bytes": 2000.0}
    half = make.record("kd/half", 0, 84.0, run=run, measures={"top1": 84.0} | sizes)
    sized.records.append(half)
    plot = the(tradeoff_plots(sections(sized)), "size")
    assert "small/half by kd; small by best; big (teacher)." in plot.caption
    figure = draw(plot)
    assert list(mark(figure, "kd/half: ").get_xdata()) == [2000]
    assert "bytes" in figure.axes[0].get_xlabel()
    assert plot.title == "digits: accuracy against size"


def test_models_of_one_cost_stand_at_that_cost(make):
    """Two pairs of one student, and a teacher each: nothing is moved along the axis."""
    sizes = {"parameters": 1000.0, "size_bytes": 4000.0, "macs": None}
    weights = {"parameters": 4000.0, "size_bytes": 16_000.0}
    teachers = [
        make.record(
            "teacher",
            0,
            95.0 + k,
            run={"students": (name,), "teachers": (), "pair": name},
            measures={"top1": 95.0 + k} | weights,
        )
        for k, name in enumerate("ab")
    ]
    records = [
        make.record(
            label,
            0,
            value + k,
            run={"pair": f"{t.run.deployed}-small", "teacher_runs": (t.id,)},
            measures={"top1": value + k} | sizes,
        )
        for k, t in enumerate(teachers)
        for label, value in (("scratch", 80.0), ("kd", 85.0), ("best", 90.0))
    ]
    plot = the(tradeoff_plots(sections(make.results(*teachers, *records))), "size")
    figure = draw(plot)
    students = [a for w, found in marks(figure).items() if "small" in w for a in found]
    assert len(students) >= 6
    assert {float(x) for a in students for x in a.get_xdata()} == {1000.0}
    axes = figure.axes[0]
    *stems, step = [line for line in axes.lines if len(line.get_xdata()) > 1]
    assert [list(line.get_xdata()) for line in stems] == [[1000, 1000]] * 2
    assert step.get_drawstyle() == "steps-post"
    assert list(step.get_xdata())[:2] == [1000, 4000]
    assert "stand on one vertical line" in plot.caption
    assert {"small\nfrom a\nbest", "small\nfrom b\nbest"} <= set(texts(figure))


def timed(records):
    """Those that were timed in their own run."""
    return [
        r.model_copy(update={"measures": r.measures | {"latency_ms": 2.0 + place}})
        for place, r in enumerate(records)
    ]


def test_no_latency_where_only_a_run_that_timed_itself_has_one(make):
    sizes = {"parameters": 1000.0, "size_bytes": 4000.0}
    records = [
        make.strategy(label, [80.0], measures={"top1": 80.0} | sizes)[0]
        for label in ("scratch", "kd", "a", "b")
    ]
    some = make.results(make.teacher(), *records[:2], *timed(records[2:]))
    assert [p.stem for p in tradeoff_plots(sections(some))] == ["overall-digits-size"]
    all_timed = make.results(*timed(records))
    assert "overall-digits-latency" in [
        p.stem for p in tradeoff_plots(sections(all_timed))
    ]
    speed = [make.speed("small", 4.0)]
    part = make.results(make.teacher(), *records[:2], *timed(records[2:]), speed=speed)
    plot = the(tradeoff_plots(sections(part)), "latency")
    assert "Left out, without a latency there: 1." in plot.caption
