"""A run is planned again from its record alone: under its own id, with its teachers."""

from __future__ import annotations

from random import Random

import pytest

from kdbench.config import FineTuning, Suite, changed, read_suite
from kdbench.plan import make_plan
from kdbench.plugins import Host
from kdbench.records import Recipe
from kdbench.reproducing.anew import again, changes, merged
from kdbench.reproducing.cells import Cell

HALF = """
import copy
from kdbench import Compression, hookimpl
from kdbench_compression import pruned

@hookimpl
def kdbench_compressions():
    return [Compression(name="half", summary="half as wide", tunes=True,
                        model=lambda base: pruned(base, 0.5))]
"""


def cells_of(record, suite, host, folder):
    """A cell for each run of the suite, as if all had finished."""
    plan = make_plan(suite, host, {})
    runs = {run.id: run for group in plan.todo for run in group.runs}
    made = {
        i: record(run.label, **run.model_dump(exclude={"seed", "label"}), seed=run.seed)
        for i, run in runs.items()
    }

    def sources(run):
        return (made[run.source], *sources(runs[run.source])) if run.source else ()

    return [
        Cell(folder, made[i], tuple(made[t] for t in run.teacher_runs), sources(run))
        for i, run in runs.items()
        if not run.is_teacher
    ]


def check(cells, host, folder):
    assert cells
    items = dict.fromkeys((cell.run.dataset for cell in cells), 1000)
    for cell in cells:
        done = again(cell, host, items, folder, None)
        assert not done.why_not, (cell.title, done.why_not)
        assert not changes([done.run], [cell.run]), cell.title
        assert done.run == cell.run, cell.title
        assert [t.id for t in done.teachers] == list(cell.run.teacher_runs)
        assert done.then.keys() >= {cell.run.id, *cell.run.teacher_runs}
        assert all(committed.id == i for i, committed in done.then.items())
        trained = [run for job in done.jobs for run in job.group.runs]
        assert trained[-1] == cell.run
        wanted = {*cell.run.teacher_runs, cell.run.id, cell.run.source} - {""}
        assert {run.id for run in trained} >= wanted
        assert len({run.seed for run in trained if not run.is_teacher}) == 1
        assert not changes([done.run, *done.teachers], [cell.run, *done.teachers])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["digits", "digits-all", "mnist", "seeds", "split-transfer"]
)
def test_runs_of_packaged_suites(record, host, tmp_path, name):
    suite = changed(read_suite(host.get("suites", name).thing.path), {"seeds": 2})
    cells = [c for c in cells_of(record, suite, host, tmp_path) if c.run.seed == 1]
    some = Random(0).sample(cells, min(30, len(cells)))  # noqa: S311
    check(some, host, tmp_path)


STRATEGIES = ["kd[temperature=2]", "kd+at[at_weight=3]", "dml", "takd", "ensemble_kd"]
STRATEGIES += ["kd/half/int8_weights", "scratch"]


def test_whatever_a_suite_can_ask_for(record, tmp_path):
    """Its own pairs and rates, sums, several networks, fine-tuning."""
    path = tmp_path / "halving.py"
    path.write_text(HALF)
    host = Host(files=[path])
    suite = Suite(
        name="own",
        datasets=("digits",),
        pairs=("mine",),
        strategies=tuple(STRATEGIES),
        seeds=2,
        recipe=Recipe(
            epochs=6,
            teacher_epochs=9,
            lr=0.02,
            lr_by_model={"convnet_32": 0.03, "convnet_6": 0.01, "convnet_16": 0.04},
            milestones=(3,),
            validation=0.1,
        ),
        fine_tuning=FineTuning(epochs=3, lr=0.001),
        define_pairs={
            "mine": {
                "teacher": ["convnet_32", "convnet_16"],
                "student": "convnet_6",
                "assistant": "convnet_16",
            }
        },
    )
    cells = cells_of(record, suite, host, tmp_path)
    labels = {cell.run.label for cell in cells}
    assert labels >= {"kd[temperature=2]", "dml", "takd", "ensemble_kd", "scratch"}
    assert any(label.startswith("kd+at[") for label in labels)
    [halved] = {x for x in labels if x.endswith("/int8_weights")}
    assert halved.startswith("kd/half[")
    assert any(cell.run.recipe.lr_by_model for cell in cells)
    check(cells, host, tmp_path)


def test_a_preset(record, host, tmp_path):
    suite = Suite(
        name="own",
        datasets=("cifar100",),
        pairs=("resnet56-resnet20",),
        strategies=("dkd@authors",),
        seeds=1,
    )
    cells = cells_of(record, suite, host, tmp_path)
    assert "dkd@authors" in {cell.run.preset for cell in cells}
    check(cells, host, tmp_path)


def test_threads_and_optional_measures_are_those_on_record(record, host, tmp_path):
    suite = Suite(
        name="own",
        datasets=("digits",),
        pairs=("digits-mlp",),
        strategies=("kd",),
        seeds=1,
        recipe=Recipe(epochs=2),
    )
    [cell] = [c for c in cells_of(record, suite, host, tmp_path) if c.run.label == "kd"]
    own = {"environment": {"device": "cpu", "threads": 3}}
    own["measures"] = {"top1": 1.0, "corruption_noise": 1.0}
    theirs = {"environment": {"device": "cpu", "threads": 2}}
    cell = Cell(
        tmp_path,
        cell.record.model_copy(update=own),
        (cell.teachers[0].model_copy(update=theirs),),
    )
    jobs = again(cell, host, {"digits": 1000}, tmp_path, None).jobs
    assert [job.threads for job in jobs] == [2, 3]
    assert [job.measures for job in jobs] == [(), ("corruption",)]


def test_a_teacher_of_two_cells_is_trained_once(record, host, tmp_path):
    suite = changed(
        read_suite(host.get("suites", "digits").thing.path),
        {"seeds": 2, "pairs": ["digits-mlp"], "strategies": ["kd"]},
    )
    cells = [
        again(cell, host, {"digits": 1000}, tmp_path, None)
        for cell in cells_of(record, suite, host, tmp_path)
    ]
    jobs = merged(cells)
    runs = [run for job in jobs for run in job.group.runs]
    assert len(cells) == 4
    assert [run.label for run in runs] == ["teacher", *(c.run.label for c in cells)]
    assert all(len(job.group.runs) == 1 for job in jobs)
    assert jobs[1].needs == {runs[0].id}


def test_what_can_no_longer_be_planned_says_why(record, host, tmp_path):
    """fsp needs equally wide stages; temprature is no parameter."""
    suite = changed(
        read_suite(host.get("suites", "digits").thing.path),
        {"seeds": 1, "pairs": ["digits-conv"], "strategies": ["kd"]},
    )
    [cell] = [c for c in cells_of(record, suite, host, tmp_path) if c.run.label == "kd"]

    def planned(**words):
        run = cell.run.model_copy(update=words)
        other = cell.record.model_copy(update={"run": run, "id": run.id})
        whole = Cell(tmp_path, other, cell.teachers)
        return again(whole, host, {"digits": 1000}, tmp_path, None)

    assert "stages must be equally wide" in planned(strategy="fsp", params={}).why_not
    assert "temprature" in planned(params={"temprature": 2}).why_not
    assert planned(params=cell.run.params).why_not == ""


def test_what_changed_since_is_named(record):
    recipe = Recipe(epochs=2)
    then = record(params={"a": 1, "b": 2}, code={"strategy": "0", "model m": "1"}).run
    now = then.model_copy(
        update={
            "params": {"a": 1, "b": 3, "c": 4},
            "code": {"strategy": "9", "model m": "1", "dataset d": "2"},
            "recipe": recipe.model_copy(update={"lr": 0.2}),
            "engine": then.engine + 1,
            "label": "other words",
        }
    )
    assert changes([now], [then]) == [
        "code of dataset d",
        "code of kd",
        f"engine: {then.engine}, now {then.engine + 1}",
        "parameter b: 2, now 3",
        "parameter c: None, now 4",
        "recipe lr: 0.05, now 0.2",
    ]
    assert changes([then], [then]) == []


def test_what_changed_of_a_teacher_is_named_once(record):
    student = record().run
    teacher = record("teacher", teachers=(), students=("big",), code={"model big": "1"})
    other = teacher.run.model_copy(update={"code": {"model big": "2"}, "protocol": "0"})
    own = student.model_copy(update={"protocol": "0"})
    assert changes([own, other], [student, teacher.run]) == [
        "protocol: '1', now '0'",
        "code of model big of teacher big",
    ]
