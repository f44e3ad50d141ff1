"""Strategies with phases as whole runs: what they ask for, and what they leave."""

from __future__ import annotations

import sys

import pytest

from kdbench.plugins import Host

PLUGIN = """
import math
from dataclasses import dataclass
from kdbench import Phase, Strategy, hookimpl, label_loss

TOLD = []

@dataclass(frozen=True, kw_only=True)
class Late(Strategy):
    '''Asks its teacher in the last phase only.'''
    name = "late"
    paper = "a test"
    taps = ("pooled",)

    def phases(self):
        return (Phase(name="alone", epochs=1, teachers=()), Phase())

    def loss(self, batch):
        loss = label_loss(batch.task, batch.student.logits, batch.targets)
        if batch.teachers:
            loss = loss + batch.teacher.features["pooled"].mean()
        return {"ce": loss}

@dataclass(frozen=True, kw_only=True)
class Early(Late):
    '''Trains longer, in a phase of its own.'''
    name = "early"

    def phases(self):
        return (Phase(name="alone", epochs=1), Phase())

@dataclass(frozen=True, kw_only=True)
class Unnamed(Late):
    '''Gives its first phase no name.'''
    name = "unnamed"

    def phases(self):
        return (Phase(epochs=1), Phase())

@dataclass(frozen=True, kw_only=True)
class Unsure(Late):
    '''Cannot say which phases it has.'''
    name = "unsure"

    def phases(self):
        raise KeyError("phases")

@dataclass(frozen=True, kw_only=True)
class Missing(Late):
    '''Names a student that there is none of.'''
    name = "missing"

    def phases(self):
        return (Phase(students=(3,)),)

@hookimpl
def kdbench_strategies():
    return [Late, Early, Unnamed, Unsure, Missing]

@hookimpl
def kdbench_epoch_finished(run, epoch, values):
    TOLD.append((run.label, epoch, [math.isfinite(v) for v in values.values()]))
"""


@pytest.fixture(scope="module")
def phased(tmp_path_factory):
    file = tmp_path_factory.mktemp("plugin") / "phased.py"
    file.write_text(PLUGIN)
    return Host(files=[file])


@pytest.fixture
def run(phased, run_digits, tmp_path):
    def run(name):
        changes = {"pairs": ["digits-conv"], "strategies": [name]}
        _, records = run_digits(tmp_path, phased, **changes)
        assert records["digits-conv/kd/0"].status == "finished"
        return records[f"digits-conv/{name}/0"]

    return run


def test_a_teacher_that_is_asked_later_has_its_taps(run):
    record = run("late")
    assert record.status == "finished"
    assert len(record.curves["before/alone/ce"]) == 1


def test_a_record_knows_the_epochs_before_the_recipes(run):
    record = run("early")
    assert record.status == "finished"
    assert record.cost["student_epochs"] == 3
    assert record.cost["epochs_before"] == 1


def test_a_phase_without_a_name_is_refused(run):
    """It would be taken for the last one, in curves and in `batch.phase`."""
    record = run("unnamed")
    assert record.status == "skipped"
    assert "need names of their own" in record.reason


def test_phases_that_cannot_be_told_harm_nobody_else(run):
    record = run("unsure")
    assert "KeyError" in record.reason


def test_a_student_that_is_not_there_harms_nobody_else(run):
    record = run("missing")
    assert record.status in ("failed", "skipped")
    assert record.reason


def test_plugins_are_told_epochs_from_1_with_finite_values(run, phased):
    run("early")
    told = sys.modules["kdbench_file_phased"].TOLD
    assert told
    assert all(epoch >= 1 and all(finite) for _, epoch, finite in told)
