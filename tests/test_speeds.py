"""Which models of a plan are timed at its end, and when again."""

from __future__ import annotations

import pytest

from kdbench import speeds
from kdbench.engine import Stopped
from kdbench.measure import timing
from kdbench.plan import make_plan
from kdbench.plugins import Host
from kdbench.speeds import measure_speed
from kdbench.store import read_record

EAGER = ("eager", "float32")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(speeds, "FORMS", {"cpu": (EAGER, ("cuda-graph", "float32"))})
    monkeypatch.setattr(speeds, "SECONDS", 0.005)
    monkeypatch.setattr(timing, "LARGEST_BATCH", 4)


@pytest.fixture
def plan(host, helpers):
    chosen = {"pairs": ["digits-mlp"], "strategies": ["kd", "kd/int8_weights"]}
    return make_plan(helpers["suite"](host, **chosen), host, {})


@pytest.fixture
def measure(host, plan, tmp_path):
    def run(known=(), stop=lambda: False):
        """What went wrong, and the records by model."""
        for path in tmp_path.glob("*.json"):
            path.unlink()
        problems = measure_speed(plan, host, tmp_path, "cpu", known, stop)
        found = [read_record(path) for path in tmp_path.glob("*.json")]
        return problems, {record.model: record for record in found}

    return run


def test_every_model_of_the_plan_is_timed_compressed_students_too(measure):
    problems, found = measure()
    assert problems == []
    assert set(found) == {"mlp_bn_256_128", "mlp_bn_8_8", "mlp_bn_8_8/int8_weights"}
    plain, small = found["mlp_bn_8_8"], found["mlp_bn_8_8/int8_weights"]
    assert small.measures["size_bytes"] < plain.measures["size_bytes"]


def test_the_headline_is_the_eager_timing(measure):
    record = measure()[1]["mlp_bn_8_8"]
    assert [(t.runtime, t.precision, t.threads) for t in record.timings] == [
        (*EAGER, 1),
        ("cuda-graph", "float32", 1),
    ]
    eager, graph = record.timings
    quartiles = [record.measures[f"latency_ms{end}"] for end in ("_q1", "", "_q3")]
    assert tuple(quartiles) == eager.latency_ms
    assert record.measures["throughput"] == eager.throughput[1]
    assert record.measures["throughput_batch"] == eager.batch
    assert "CUDA" in graph.reason
    assert {"onnxruntime", "torchao"} <= set(record.environment)


def test_what_is_timed_already_is_left_alone(measure):
    known = measure()[1].values()
    assert measure(known) == ([], {})


@pytest.mark.parametrize(
    "change",
    [
        {"timings": []},  # as records were
        {"environment": {"onnxruntime": "0.1"}},
        {"environment": {"cpu": "another"}},
        {"dataset": "mnist"},
    ],
)
def test_what_is_not_is_timed_again(measure, change):
    first, *rest = measure()[1].values()
    if "environment" in change:
        change = {"environment": first.environment | change["environment"]}
    known = [first.model_copy(update=change), *rest]
    assert set(measure(known)[1]) == {first.model}


def test_a_model_that_cannot_be_timed_is_a_problem_and_the_rest_is_timed(
    measure, monkeypatch
):
    right = speeds.timings_of

    def breaks(module, *args, **more):
        if sum(p.numel() for p in module.parameters()) < 1000:
            raise ValueError("no such luck")
        return right(module, *args, **more)

    monkeypatch.setattr(speeds, "timings_of", breaks)
    problems, found = measure()
    assert set(found) == {"mlp_bn_256_128"}
    assert any(p == "speed of mlp_bn_8_8: ValueError: no such luck" for p in problems)


def test_it_stops_between_two_models(measure):
    with pytest.raises(Stopped):
        measure(stop=lambda: True)


MEASURED = """
from kdbench import Measure, hookimpl

def fails(finished):
    raise KeyError("no such thing")

@hookimpl
def kdbench_measures():
    common = {"summary": "of a model", "unit": "", "better": None, "scope": "model"}
    return [
        Measure(name="width", compute=lambda finished: 7.0, **common),
        Measure(name="widths", compute=lambda finished: [1.0, 2.0], **common),
        Measure(name="asked", optional=True, compute=lambda finished: 3.0, **common),
        Measure(name="bad", compute=fails, **common),
    ]
"""


def test_measures_of_models_are_kept_shown_and_taken_when_they_come(
    host, helpers, measure, tmp_path
):
    from kdbench.report.sections import sections
    from kdbench.report.speed import models_table
    from kdbench.session import Session
    from kdbench.store import load

    path = tmp_path / "measured.py"
    path.write_text(MEASURED)
    more = Host(files=[path])
    chosen = {"pairs": ["digits-mlp"], "strategies": ["kd"], "epochs": 1}
    options = helpers["options"](tmp_path / "out")
    assert Session(host, helpers["suite"](host, **chosen), options).run() == 0
    folder = tmp_path / "out" / "digits"
    assert models_table(sections(load([folder]))[0]) is None
    suite = helpers["suite"](more, **chosen, measures=["asked"])
    assert Session(more, suite, options).run() == 1  # "bad" is told of
    for record in load([folder]).speed:
        assert (record.measures["width"], record.measures["asked"]) == (7.0, 3.0)
        assert record.measures["bad"] is None
        assert record.lists["widths"] == [1.0, 2.0]
    table = models_table(sections(load([folder]))[0])
    assert [cell.text for cell in table.rows[0].cells][1:4] == ["3.00", "-", "7.00"]
    times = {p: p.stat().st_mtime_ns for p in folder.glob("speed-*.json")}
    assert Session(more, suite, options).run() == 0
    assert {p: p.stat().st_mtime_ns for p in times} == times
