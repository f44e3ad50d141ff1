"""A suite of several systems: what is missing is left out, and said."""

from __future__ import annotations

import pytest

from kdbench.api import UserError
from kdbench.config import Suite, System
from kdbench.plan import make_plan
from kdbench.records import Recipe
from kdbench.session import Session
from kdbench.store import load

QUICK = Recipe(epochs=1, lr=0.01, batch_size=32)


def suite(*datasets: str) -> Suite:
    pairs = {"diabetes": "split-mlp", "noise": "split-mlp", "mnist": "mnist-lenet"}
    systems = tuple(
        System(
            title=f"On {name}", note="Quick.", datasets=(name,), pairs=(pairs[name],)
        )
        for name in datasets
    )
    return Suite(
        name="two", strategies=("scratch", "kd"), seeds=1, recipe=QUICK, systems=systems
    )


def test_a_system_without_data_is_left_out_and_said(host, helpers, tmp_path, capsys):
    session = Session(host, suite("mnist", "noise"), helpers["options"](tmp_path))
    assert session.run() == 0
    said = " ".join(capsys.readouterr().out.split())
    what = "left out: On mnist: dataset 'mnist' needs files"
    assert said.count(what) == 2  # before it starts, and after the tables
    assert "--data-dir" in said
    records = load([tmp_path / "two"]).records
    assert {r.run.dataset for r in records} == {"noise"}
    student = next(r for r in records if r.run.label == "kd")
    assert (student.run.system, student.run.note) == ("On noise", "Quick.")


def test_with_nothing_left_nothing_starts(host, helpers, tmp_path):
    session = Session(host, suite("mnist"), helpers["options"](tmp_path))
    with pytest.raises(UserError, match="needs files"):
        session.run()
    assert not (tmp_path / "two").exists()


def test_words_are_no_part_of_a_runs_identity(host):
    def ids(chosen: Suite) -> set[str]:
        return {run.id for g in make_plan(chosen, host, {}).todo for run in g.runs}

    plain = Suite(
        name="two",
        strategies=("scratch", "kd"),
        seeds=1,
        recipe=QUICK,
        datasets=("noise",),
        pairs=("split-mlp",),
    )
    assert ids(plain) == ids(suite("noise"))


@pytest.mark.parametrize("name", ["seeds", "split-transfer"])
def test_packaged_systems_can_be_planned(host, name):
    from kdbench.config import read_suite

    chosen = read_suite(host.get("suites", name).thing.path)
    plan = make_plan(chosen, host, {})
    assert plan.skipped == ()
    titles = {run.system for group in plan.todo for run in group.runs} - {""}
    assert titles == {system.title for system in chosen.systems}


def test_only_the_missing_dataset_of_a_system_is_left_out(host, helpers, tmp_path):
    both = (
        suite("noise")
        .systems[0]
        .model_copy(update={"datasets": ("noise", "california_housing")})
    )
    chosen = suite("noise").model_copy(update={"systems": (both,)})
    assert Session(host, chosen, helpers["options"](tmp_path)).run() == 0
    records = load([tmp_path / "two"]).records
    assert {r.run.dataset for r in records} == {"noise"}


def test_two_systems_with_the_same_runs_are_refused(host):
    one = suite("noise").systems[0]
    other = one.model_copy(update={"title": "Again"})
    chosen = suite("noise").model_copy(update={"systems": (one, other)})
    with pytest.raises(UserError, match="'On noise' and 'Again' train the same pair"):
        make_plan(chosen, host, {})


def test_finished_runs_take_the_suites_present_words(host, helpers, tmp_path):
    options = helpers["options"](tmp_path)
    Session(host, suite("noise"), options).run()
    renamed = suite("noise").systems[0].model_copy(update={"title": "New"})
    chosen = suite("noise").model_copy(update={"systems": (renamed,)})
    session = Session(host, chosen, options)
    assert session.train().todo == ()
    students = [r for r in load([tmp_path / "two"]).records if not r.run.is_teacher]
    assert {r.run.system for r in students} == {"New"}
