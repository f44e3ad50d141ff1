"""Verdicts: bit for bit where that can be asked for, else by the interval."""

from __future__ import annotations

import base64

import pytest

from kdbench.records import Recipe
from kdbench.reproducing.anew import Again
from kdbench.reproducing.cells import Cell
from kdbench.reproducing.judging import first_difference, judge, why_apart

SEEDS = (79.0, 80.0, 81.0)


def judged(host, then, new, seeds=SEEDS, run=None, level=0.95, teachers=()):
    """The verdict on a cell whose repetition left the record `new`."""
    cell = Cell(
        folder=None, record=then, teachers=tuple(a for a, _ in teachers), seeds=seeds
    )
    run = run or new.run
    done = Again(
        cell,
        run=run,
        teachers=tuple(b.run for _, b in teachers),
        then={run.id: then} | {b.id: a for a, b in teachers},
    )
    records = {run.id: new} | {b.id: b for _, b in teachers}
    return judge(done, records, level, host)


def changed(record, **values):
    return record.model_copy(update=values)


def test_the_same_bits_are_identical_whatever_was_timed(record, host):
    then = record()
    new = changed(
        then,
        cost={"train_s": 99.0, "student_epochs": 2.0},
        measures=then.measures | {"latency_ms": 7.0, "newer": 1.0},
        finished_at="2027-01-01T00:00:00+00:00",
    )
    found = judged(host, then, new)
    assert (found.verdict, found.difference) == ("identical", "")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"curves": {"loss/kd": [2.0, 1.0], "top1": [70.0, 80.5]}},
            "top1 of epoch 2 is 80.5, on record 80.0",
        ),
        (
            {"curves": {"loss/kd": [2.5, 1.0], "top1": [70.0, 80.5]}},
            "loss/kd of epoch 1 is 2.5, on record 2.0",
        ),
        (
            {"curves": {"loss/kd": [2.0], "top1": [70.0, 80.0]}},
            "loss/kd of epoch 2 is missing, on record 1.0",
        ),
        (
            {"measures": {"top1": 80.0, "nll": 0.5000000000000001}},
            "nll is 0.5000000000000001, on record 0.5",
        ),
        ({"measures": {"top1": 80.0}}, "nll is missing, on record 0.5"),
        (
            {"lists": {"per_class_top1": [70.0, 1.0]}},
            "per_class_top1[1] is 1.0, on record null",
        ),
        ({"cost": {"student_epochs": 3.0}}, "student_epochs is 3.0, on record 2.0"),
        ({"test_items": 449}, "test_items is 449, on record 450"),
        ({"weights_sha256": "cd" * 32}, "weights_sha256 is cdcdcdcdcdcd..., on record"),
    ],
)
def test_the_first_difference_has_both_numbers(record, host, values, says):
    then = record()
    found = judged(host, then, changed(then, **values))
    assert found.verdict == "differs"
    assert found.difference.startswith(says)


def test_items_that_were_right_are_compared_bit_by_bit(record, host):
    masks = [base64.b64encode(bytes(x)).decode() for x in ([255, 0], [254, 1])]
    then = record(correct=masks[0])
    found = judged(host, then, changed(then, correct=masks[1]))
    assert found.verdict == "differs"
    assert "correct (unlike for 2 items)" in found.difference
    assert not first_difference(then, then)


@pytest.mark.parametrize(
    ("key", "value"),
    [("torch", "3"), ("threads", 2), ("cpu", "B"), ("numpy", "1"), ("machine", "arm")],
)
def test_on_another_machine_the_interval_judges(record, host, key, value):
    then = record()
    there = {"environment": then.environment | {key: value}}
    near = {"measures": then.measures | {"top1": 82.0}}
    far = {"measures": then.measures | {"top1": 60.0}}
    found = judged(host, then, changed(then, **there, **near))
    assert found.verdict == "within"
    assert f"{key} {then.environment.get(key)}, here {value}" in found.elsewhere
    assert judged(host, then, changed(then, **there, **far)).verdict == "outside"
    assert judged(host, then, changed(then, **there)).verdict == "identical"
    assert judged(host, then, changed(then, **far)).verdict == "differs"


def test_what_changes_no_bits_is_no_other_machine(record, host):
    then = record()
    there = {"environment": then.environment | {"cores": 99, "platform": "other"}}
    near = {"measures": then.measures | {"top1": 82.0}}
    assert judged(host, then, changed(then, **there, **near)).verdict == "differs"


def test_other_code_is_said_and_the_interval_judges(record, host):
    then = record()
    run = then.run.model_copy(update={"code": {"strategy": "1"}})
    for value, verdict in ((82.0, "within"), (60.0, "outside")):
        new = record(code=run.code, measures=then.measures | {"top1": value})
        found = judged(host, then, new)
        assert (found.verdict, found.changes) == (verdict, ("code of kd",))


@pytest.mark.parametrize("seeds", [(), (80.0,), (79.0, 81.0), (80.0, 80.0, 80.0)])
def test_without_a_spread_there_is_no_interval(record, host, seeds):
    then = record()
    there = {"environment": then.environment | {"torch": "3"}}
    near = {"measures": then.measures | {"top1": 80.1}}
    found = judged(host, then, changed(then, **there, **near), seeds)
    assert found.verdict == "no interval"
    assert judged(host, then, changed(then, **there), seeds).verdict == "identical"


@pytest.mark.parametrize(
    ("recipe", "device", "verdict"),
    [
        (Recipe(), "cpu", "differs"),
        (Recipe(stack=True), "cpu", "within"),
        (Recipe(), "cuda", "within"),
        (Recipe(deterministic=True), "cuda", "differs"),
    ],
)
def test_bits_are_asked_for_where_they_are_promised(
    record, host, recipe, device, verdict
):
    then = record(recipe=recipe, environment={"device": device})
    near = {"measures": then.measures | {"top1": 80.1}}
    assert judged(host, then, changed(then, **near)).verdict == verdict


def test_the_teacher_is_compared_too_and_named_first(record, host):
    teacher = record("teacher", teachers=(), students=("big",))
    other = changed(teacher, weights_sha256="cd" * 32)
    then = record(teacher_runs=(teacher.id,))
    new = changed(then, measures=then.measures | {"top1": 80.1})
    found = judged(host, then, new, teachers=[(teacher, other)])
    assert found.verdict == "differs"
    assert found.difference.startswith("teacher big #0: weights_sha256")
    found = judged(host, then, then, teachers=[(teacher, other)])
    assert found.verdict == "differs"
    assert judged(host, then, then, teachers=[(teacher, teacher)]).verdict == (
        "identical"
    )


def test_a_failure_says_why_also_of_a_teacher(record, host):
    then = record()
    failed = changed(then, status="failed", reason="not finite")
    found = judged(host, then, failed)
    assert (found.verdict, found.reason) == ("failed", "not finite")
    teacher = record("teacher", teachers=(), students=("big",))
    broken = changed(teacher, status="failed", reason="no memory")
    done = Again(Cell(None, then, (teacher,)), run=then.run, then={teacher.id: teacher})
    found = judge(done, {teacher.id: broken}, 0.9, host)
    assert (found.verdict, found.reason) == ("failed", "teacher big: no memory")
    found = judge(Again(done.cell, why_not="because"), {}, 0.9, host)
    assert (found.verdict, found.reason) == ("failed", "because")


def test_a_headline_that_is_gone_is_a_failure(record, host):
    then = record()
    there = {"environment": then.environment | {"torch": "3"}}
    gone = {"measures": then.measures | {"top1": None}}
    assert judged(host, then, changed(then, **there, **gone)).verdict == "failed"


def test_times_are_known_by_their_unit(host):
    names = ("latency_ms", "throughput", "throughput_batch", "top1", "size_bytes", "x")
    why = ["in ms", "in items/s", "in items/s", "", "", "unknown"]
    assert [why_apart(name, host) for name in names] == why


def test_a_measure_that_nobody_here_takes_is_not_compared_and_said(record, host):
    then = record()
    more = changed(then, measures=then.measures | {"wonder": 1.0})
    found = judged(host, more, then)
    assert (found.verdict, found.unknown) == ("identical", ("wonder",))


def test_what_an_older_record_does_not_name_is_no_proof_of_the_same_machine(
    record, host
):
    now = record()
    older = {k: v for k, v in now.environment.items() if k != "cpu"}
    then = changed(now, environment=older)
    other = changed(now, measures=now.measures | {"top1": now.measures["top1"] + 1e-9})
    found = judged(host, then, other)
    assert found.elsewhere == ("cpu not on record",)
    assert found.verdict != "differs"
