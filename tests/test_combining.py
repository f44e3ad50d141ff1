"""Sums of strategies: parts as they are alone, weighed, each with its own share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from kdbench.api import ExtraView, Phase, Strategy, Tapped
from kdbench.combining import combine
from kdbench.tasks import Head, Task
from kdbench.testing import given as given


@dataclass(frozen=True, kw_only=True)
class First(Strategy):
    """One teacher, one student, adapters that are a pair of numbers."""

    name = "first"
    taps = ("pooled",)

    temperature: float = 2.0

    def adapters(self, student, teacher):
        return nn.Linear(1, 1)

    def loss(self, batch):
        assert len(batch.students) == len(batch.teachers) == 1
        assert not batch.views
        scale = sum(p.sum() for p in batch.adapters.parameters())
        return {"a": batch.student.logits.sum() * self.temperature * scale}


@dataclass(frozen=True, kw_only=True)
class Second(Strategy):
    """Two students, three teachers, a view; no adapters."""

    name = "second"
    taps = ("stages", "pooled")
    views = ("strong",)
    students = 2
    teachers = 3
    tasks = ("classification", "multi-task")

    def loss(self, batch):
        seen = batch.views["strong"]
        assert [len(batch.students), len(batch.teachers)] == [2, 3]
        assert [len(seen.students), len(seen.teachers)] == [2, 3]
        assert batch.adapters is None
        return {"b": batch.students[1].logits.mean(), "c": seen.inputs.sum()}


@dataclass(frozen=True, kw_only=True)
class Headed(Strategy):
    """The label loss of each head."""

    name = "headed"
    tasks = ("classification", "multi-task")

    def loss(self, batch):
        return {"ce": batch.student.logits.square().mean()}


def kind(named: str, base=Headed, **members) -> type[Strategy]:
    made = type(named, (base,), {"name": named, **members})
    return dataclass(frozen=True, kw_only=True)(made)


PHASED = kind("phased", phases=lambda self: (Phase(name="early"), Phase()))


def batch_of(given, adapters=None, **changes):
    batch = given.batch(students=2, teachers=3, **changes)
    view = ExtraView(
        batch.inputs + 1, batch.index, batch.index, batch.students, batch.teachers
    )
    return dataclasses.replace(batch, adapters=adapters, views={"strong": view})


def test_a_sums_terms_are_its_parts_terms_times_their_weights(given):
    own = nn.Linear(1, 1)
    made = combine([First, Second]).configured(
        {"first.temperature": 3, "second.weight": 0.5, "first.weight": "0->4"}
    )
    batch = batch_of(given, nn.ModuleDict({"first": own}), progress=0.25)
    terms = made.at(0.25).terms(batch)
    assert list(terms) == ["first/a", "second/b", "second/c"]
    scale = sum(p.sum() for p in own.parameters())
    torch.testing.assert_close(
        terms["first/a"], 1.0 * 3 * batch.student.logits.sum() * scale
    )
    torch.testing.assert_close(terms["second/b"], 0.5 * batch.students[1].logits.mean())
    assert terms["second/c"] == 0.5 * len(batch.targets)


def test_a_sum_asks_for_what_its_parts_ask_for():
    made = combine([First, Second]).configured({})
    assert made.taps == ("pooled", "stages")
    assert made.views == ("strong",)
    assert (made.students, made.teachers) == (2, 3)
    assert made.tasks == ("classification",)
    assert type(made).name == "first+second"
    assert type(made).teaches("gradient")
    assert not type(made).teaches("fitted")


def test_each_part_has_its_own_adapters():
    made = combine([First, Second]).configured({})
    side = Tapped("net", {"logits": (4,)}, nn.Identity())
    built = made.adapters(side, side)
    assert list(dict(built.named_children())) == ["first"]
    assert combine([Second, Headed]).configured({}).adapters(side, side) is None


def test_values_make_the_same_sum_again_and_equal_weights_are_one_value():
    cls = combine([First, Second])
    given = {"first.temperature": "4->1", "second.weight": 2, "first.weight": "1->0"}
    made = cls.configured(given)
    assert made.values() == {
        "first.temperature": "4->1",
        "first.weight": "1->0",
        "second.weight": 2.0,
    }
    again = cls.configured(made.values())
    assert again.values() == made.values()
    assert again.at(0.5).parts[0].temperature == 2.5
    assert type(made.values()["second.weight"]) is float  # 2 and 2.0 are one run


def test_heads_are_given_to_each_part_that_taps_nothing(given):
    heads = tuple(
        Head(name=name, task=Task(outputs=2), weight=weight)
        for name, weight in (("x", 1.0), ("y", 3.0))
    )
    task = Task(kind="multi-task", outputs=4, heads=heads)
    batch = dataclasses.replace(
        given.batch(classes=4), task=task, targets=torch.zeros(4, 2).long()
    )
    made = combine([Headed, kind("tapping", taps=("pooled",))]).configured(
        {"headed.weight": 2}
    )
    terms = made.terms(batch)
    assert list(terms) == ["headed/x/ce", "headed/y/ce", "tapping/ce"]
    logits = batch.student.logits
    torch.testing.assert_close(
        terms["headed/y/ce"], 2 * 3 * logits[:, 2:].square().mean()
    )
    torch.testing.assert_close(terms["tapping/ce"], logits.square().mean())


def test_in_an_early_phase_only_its_part_speaks(given):
    made = combine([Headed, PHASED]).configured({})
    batch = dataclasses.replace(given.batch(), phase="early")
    assert list(made.terms(batch)) == ["phased/ce"]
    assert list(made.terms(given.batch())) == ["headed/ce", "phased/ce"]
    assert made.phases() == (Phase(name="early"), Phase())


@pytest.mark.parametrize("own_teacher", [True, False])
def test_who_trains_in_turn_sees_its_peers_among_more_teachers(given, own_teacher):
    """Another part's teachers stand between its own and its peers."""
    seen = []
    teachers = None if own_teacher else (0,)
    cls = kind(
        "turns",
        students=1,
        phases=lambda self: (Phase(name="x"), Phase(teachers=teachers, peers=(0,))),
        loss=lambda self, batch: seen.append(batch.teachers) or {},
    )
    made = combine([cls, kind("many", teachers=3)]).configured({})
    batch = given.batch(teachers=4 if own_teacher else 2)
    made.terms(batch)
    assert seen == [(batch.teachers[0], batch.teachers[-1])]


def test_a_part_sees_its_own_taps_only(given):
    """What reads features by their place must not meet those of other parts."""
    told = {}

    def told_by(name):
        def loss(self, batch):
            told[name] = list(batch.student.features), list(batch.teacher.features)
            return {"x": batch.student.logits.sum()}

        return loss

    stages = kind("stages", taps=("stages",), loss=told_by("stages"))
    pooled = kind("pooled", taps=("pooled",), loss=told_by("pooled"))
    shapes = {"preact1": (3,), "stage1": (3,), "stage2": (3,), "pooled": (3,)}
    batch = given.batch(student_shapes=shapes, teacher_shapes=shapes)
    made = combine([stages, pooled]).configured({})
    made.loss(batch)
    assert told["stages"] == (["stage1", "stage2"],) * 2
    assert told["pooled"] == (["pooled"],) * 2


def test_each_side_answers_the_views_that_some_part_wants():
    both = kind("both", views=("strong",))
    noisy = kind("noisy", views=("strong",), student_views=("strong",))
    plain = kind("plain")
    made = combine([noisy, plain]).configured({})
    assert set(made.student_views) == {"", "strong"}
    assert combine([noisy, both]).configured({}).teacher_views == ("", "strong")
    assert set(combine([plain, noisy]).configured({}).student_views) == {"", "strong"}
