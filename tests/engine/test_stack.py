"""Stacked students: the same weights as unstacked ones, and the same life."""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from kdbench.engine import Stopped, checkpoint
from kdbench.engine.learner import Learner
from kdbench.engine.stack import Stack
from kdbench.engine.units import united

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from stacking import (
    NORMED,
    PLAIN,
    RECIPE,
    Adapted,
    FirstStageLater,
    FirstStageOnly,
    Group,
    InPlace,
    LiveClassifier,
    NeedsItsGraph,
    Plain,
    Random,
    assert_alike,
    both,
    moved,
)

KINDS = [
    "kd",
    "fitnet",
    "sp",
    "rkd",
    "vid",
    "simkd",
    "srrl",
    "dml",
    "scratch_longer",
    "label_smoothing",
]


@pytest.mark.parametrize("student", [PLAIN, NORMED], ids=["plain", "batch norm"])
def test_stacked_equals_unstacked(host, tmp_path, student):
    def make():
        for name in KINDS:
            yield name, host.strategy(name).configured({})
        for cls in (Plain, LiveClassifier, FirstStageOnly, NeedsItsGraph):
            yield cls.__name__, cls()
        yield "random", Random()
        yield "in place", InPlace()

    for one, two in both(tmp_path, make, student=student):
        assert_alike(one, two)
        assert one.trace.cost["teacher_forwards"] == two.trace.cost["teacher_forwards"]


@pytest.mark.parametrize(
    "changes",
    [
        {"optimiser": "adam", "lr": 0.002},
        {"nesterov": True, "weight_decay": 0.05},
        {"momentum": 0.0, "weight_decay": 0.0},
        {"drop_last": False},
    ],
    ids=str,
)
def test_whatever_the_optimiser(host, tmp_path, changes):
    def make():
        for temperature in (1.0, 4.0):
            yield (
                temperature,
                host.strategy("kd").configured({"temperature": temperature}),
            )
        yield "adapted", Adapted()
        yield "later", FirstStageLater()

    recipe = RECIPE.model_copy(update=changes)
    for one, two in both(tmp_path, make, recipe):
        assert_alike(one, two, 1e-4 if "optimiser" in changes else 1e-5)


@pytest.mark.parametrize("student", [PLAIN, NORMED], ids=["plain", "batch norm"])
def test_bfloat16_is_as_near_as_its_rounding(host, tmp_path, student):
    def make():
        for name in ("kd", "fitnet", "label_smoothing"):
            yield name, host.strategy(name).configured({})

    recipe = RECIPE.model_copy(update={"precision": "bfloat16"})
    for one, two in both(tmp_path, make, recipe, student=student):
        assert_alike(one, two, 2e-3)


def test_only_the_alike_are_stacked(host):
    group = Group()
    names = ["kd", "fitnet", "dml", "label_smoothing", "scratch_longer"]
    learners = [group.learner(host.strategy(n).configured({}), n) for n in names]
    before = [p.data_ptr() for x in learners for p in x.student.parameters()]
    with united(learners) as units:
        [stack] = [u for u in units if isinstance(u, Stack)]
        assert [x.run.label for x in units if isinstance(x, Learner)] == [
            "dml",
            "scratch_longer",
        ]
        assert stack.due((0, 0))
        assert not stack.due((-1, 0))
    group = Group(RECIPE.model_copy(update={"stack": False}))
    others = [group.learner(host.strategy("kd").configured({})) for _ in range(2)]
    with united(others) as units:
        assert units == others
    assert len(set(before)) == len(before)


def test_members_stand_alone_again(host):
    """Else each checkpoint would hold them all, and a copy of one drag on the rest."""
    group = Group(student=NORMED)
    learners = [group.learner(Plain(), str(k)) for k in range(3)]
    with united(learners):
        weight = learners[1].student.classifier.weight
        assert weight.untyped_storage().nbytes() == 3 * weight.nbytes
    for learner in learners:
        for tensor in learner.modules.state_dict().values():
            assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_a_checkpoint_in_mid_epoch_holds_one_student(tmp_path):
    sizes = []
    for count in (1, 4):
        group = Group()
        learners = [group.learner(Plain(), str(k)) for k in range(count)]
        calls = iter([False] * 3 + [True])
        folder = tmp_path / str(count)
        with pytest.raises(Stopped):
            group.train(*learners, folder=folder, stop=lambda c=calls: next(c))
        [first, *_] = folder.glob("*.ckpt")
        sizes.append(first.stat().st_size)
    assert sizes[1] < 1.1 * sizes[0]


@pytest.mark.parametrize("student", [PLAIN, NORMED], ids=["plain", "batch norm"])
def test_stopping_in_mid_epoch_changes_no_bit(host, tmp_path, student):
    names = ["kd", "fitnet", "label_smoothing", "dml"]

    def fresh():
        group = Group(student=student)
        given = [group.learner(host.strategy(n).configured({}), n) for n in names]
        return group, given

    group, whole = fresh()
    group.train(*whole, folder=tmp_path / "a")
    group, halves = fresh()
    calls = iter([False] * 4 + [True])
    with pytest.raises(Stopped):
        group.train(*halves, folder=tmp_path / "b", stop=lambda: next(calls))
    group, resumed = fresh()
    for learner in resumed:
        learner.restore(checkpoint.load(tmp_path / "b", learner.run.id))
        assert learner.position == (0, 5)
    group.train(*resumed, folder=tmp_path / "c")
    for one, two in zip(whole, resumed, strict=True):
        states = one.modules.state_dict(), two.modules.state_dict()
        assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())
        assert one.trace.curves == two.trace.curves


def test_resumed_at_different_places_they_join_at_the_next_epoch(tmp_path):
    group = Group()
    alone = group.learner(Plain(), "0")
    calls = iter([False] * 2 + [True])
    with pytest.raises(Stopped):
        group.train(alone, folder=tmp_path, stop=lambda: next(calls))
    learners = [group.learner(Plain(), str(k)) for k in range(3)]
    learners[0].restore(checkpoint.load(tmp_path, alone.run.id))
    group.train(*learners, folder=tmp_path)
    plain = Group(RECIPE.model_copy(update={"stack": False}))
    expected = plain.learner(Plain(), "0")
    plain.train(expected, folder=tmp_path)
    for learner in learners:
        assert learner.position == (2, 0)
        assert_alike(learner, expected)


def test_other_watchers_of_the_layers_keep_a_student_out():
    group = Group()
    learners = [group.learner(Plain(), str(k)) for k in range(3)]
    learners[2].student.layers[0].register_forward_hook(lambda *_: None)
    with united(learners) as units:
        assert units[0] is learners[2]
        assert len(units) == 2


def test_adapters_train_and_costs_are_shared(host, tmp_path):
    group = Group()
    start = group.learner(host.strategy("fitnet").configured({}))
    before = deepcopy(start.adapters.state_dict())
    members = [group.learner(host.strategy("fitnet").configured({}), "one")]
    members += [group.learner(Plain(), str(k)) for k in range(3)]
    group.train(*members, folder=tmp_path)
    after = members[0].adapters.state_dict()
    assert all(not torch.equal(after[k], v) for k, v in before.items())
    for member in members:
        cost = member.trace.cost
        assert moved(member)
        assert cost["student_epochs"] == 2
        assert cost["teacher_forwards"] == 2 * group.feed.steps
        parts = [cost[f"{p}_s"] for p in ("student", "loss", "backward", "optimiser")]
        assert all(part > 0 for part in parts)
        assert cost["own_s"] >= sum(parts)
    shared = {m.trace.cost["student_s"] for m in members}
    assert max(shared) == pytest.approx(min(shared))


def test_foreign_chains_are_stacked_too(tmp_path):
    def build(shape, outputs):
        return nn.Sequential(
            nn.Flatten(),
            nn.BatchNorm1d(64),
            nn.Linear(64, 16, bias=False),
            nn.GELU(),
            nn.Linear(16, 12),
            nn.ReLU(inplace=True),
            nn.Linear(12, outputs),
        )

    taps = {"stage1": "3", "stage2": "4", "pooled": "6:input"}
    student = replace(
        PLAIN, name="foreign", build=build, taps=taps, classifier="6", summary="foreign"
    )

    def make():
        for k, cls in enumerate((Plain, InPlace, LiveClassifier)):
            yield k, cls()

    for one, two in both(tmp_path, make, student=student):
        assert_alike(one, two)


def test_a_suite_of_stacked_students(run_digits, tmp_path):
    """From suite to records and weights; who is stacked says so."""
    names = ["kd", "fitnet", "dml"]
    cells = {}
    for stack in (True, False):
        out = tmp_path / str(stack)
        changes = {"pairs": ["digits-mlp"], "strategies": names, "epochs": 1}
        failed, cells[stack] = run_digits(out, stack=stack, **changes)
        assert failed == 0
        assert len(list(out.glob("digits/weights/*"))) == len(cells[stack])
    for cell, record in cells[True].items():
        other = cells[False][cell]
        assert record.id != other.id
        assert "stacked students" in record.run.recipe.sentence()
        assert record.measures["top1"] == pytest.approx(other.measures["top1"], abs=0.7)
