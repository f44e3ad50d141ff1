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
    assert "left out: On mnist: dataset 'mnist' needs files" in said
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
