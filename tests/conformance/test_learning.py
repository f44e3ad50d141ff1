"""The check that something is learned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.nn.functional as F

from kdbench.api import Strategy
from kdbench.conformance.checks import carried_out, checks_of
from kdbench.conformance.learning import sinking
from kdbench.conformance.targets import find, of_class
from kdbench.conformance.toys import Toy
from kdbench.conformance.trainings import subject_of
from kdbench.records import TOP1

MUSEUM = Path(__file__).parents[1] / "museum"
[LEARNS] = [c for c in checks_of("strategy") if c.name == "learns"]


strategy = dataclass(frozen=True, kw_only=True)


@strategy
class Plain(Strategy):
    """Cross-entropy."""

    name = "plain"

    def loss(self, batch):
        return {"ce": F.cross_entropy(batch.student.logits, batch.targets)}


@strategy
class Mixed(Plain):
    """Takes other items' labels."""

    def loss(self, batch):
        return {"ce": F.cross_entropy(batch.student.logits, batch.targets.roll(1))}


@strategy
class Breaks(Plain):
    """Fails where it trains for longer than `trains` does."""

    def loss(self, batch):
        if batch.epoch > 5:
            raise ValueError("so long")
        return super().loss(batch)


@strategy
class Pays(Plain):
    """A term below zero that has a bound: minus the likeliest class's probability."""

    def loss(self, batch):
        sure = batch.student.logits.softmax(dim=1).amax(dim=1).mean()
        return {**super().loss(batch), "sure": -0.1 * sure}


@strategy
class Bottomless(Plain):
    """It learns, though a term falls without end."""

    def loss(self, batch):
        ce = F.cross_entropy(batch.student.logits, batch.targets)
        return {"ce": 5.0 * ce, "relation": -2.0 * batch.student.logits.abs().mean()}


def learns(kind):
    return carried_out(LEARNS, of_class(kind).subject)


@pytest.mark.parametrize("kind", [Plain, Pays])
def test_who_learns_passes(kind):
    assert learns(kind).status == "passed"


def test_the_wrong_sign_fails():
    path = str(MUSEUM / "wrong_sign.py")
    [thing] = [t for t in find(path).things if t.kind == "strategy"]
    found = carried_out(LEARNS, thing.subject)
    assert found.failed
    assert "chance is 25% and 62% are wanted; terms: loss/ce from" in found.said
    assert "loss/relation from -" in found.said


def test_a_term_without_a_lower_bound_is_named_also_where_the_student_learns():
    found = learns(Bottomless)
    assert found.failed
    assert "'loss/relation' falls without end" in found.said
    assert "wrong sign" in found.said


def test_who_learns_nothing_fails_with_its_terms():
    found = learns(Mixed)
    assert found.failed
    assert "chance is 25% and 62% are wanted; terms: loss/ce from" in found.said


def test_who_breaks_later_fails():
    found = learns(Breaks)
    assert found.failed
    assert "a training of ten epochs failed: ValueError: so long" in found.said


def test_numbers_are_not_asked_for_classes(host):
    subject = subject_of(host, "scratch", [Toy("noise", "split-mlp")])
    assert carried_out(LEARNS, subject).status == "does not apply"


@pytest.mark.parametrize(
    ("curve", "falls"),
    [
        ([1.0, -11.0, -12.0, -13.0], True),
        ([1.0, -7.0, -8.0, -9.0], False),
        ([-13.0, -13.0, -13.0], False),
        ([-20.0, -12.0, -13.0], False),
        ([-12.0], False),
        ([-11.0, -12.0, None], True),
    ],
)
def test_a_term_without_a_lower_bound(curve, falls):
    record = SimpleNamespace(
        curves={"loss/a": curve, "lr": [-9e9, -9e10], "top1": [-9e9, -9e10]},
        headline=TOP1,
    )
    assert sinking(record) == (["loss/a"] if falls else [])
