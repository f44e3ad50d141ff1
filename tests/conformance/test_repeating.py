"""Checks that a training can be repeated: each names its mistakes alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from kdbench.api import Strategy
from kdbench.conformance import repeating
from kdbench.conformance.checks import carried_out, checks_of
from kdbench.conformance.repeating import _other_setting, difference
from kdbench.conformance.targets import find, of_class
from kdbench.randomness import global_generators

MUSEUM = Path(__file__).parents[1] / "museum"
CHECKS = {
    c.name: c for c in checks_of("strategy") if c.look.__module__ == repeating.__name__
}
PIECES = {
    "clock_seed": ("same-seed", "two trainings of one seed differ: the curve"),
    "shared_memory": ("company", "beside label_smoothing, scratch, shared_memory["),
    "warm_variable": ("resume", "undisturbed and stopped 3 times differ"),
}


strategy = dataclass(frozen=True, kw_only=True)


@strategy
class Plain(Strategy):
    """Cross-entropy."""

    name = "plain"

    ce_weight: float = 1.0  # >= 0; ours

    def loss(self, batch):
        return {"ce": self.ce_weight * F.cross_entropy(*self.given(batch))}

    def given(self, batch):
        return batch.student.logits, batch.targets


@strategy
class Loop(Plain):
    """Cross-entropy in a loop of its own, its weight kept where it belongs."""

    def train(self, context):
        student = context.students[0]
        optimiser = context.optimiser(student.parameters())
        for _ in context.epochs():
            student.train()
            weight = self.weight(context.state)
            for batch in context.batches():
                ce = F.cross_entropy(student(batch.inputs), batch.targets)
                optimiser.zero_grad()
                (weight * ce).backward()
                optimiser.step()
        return student

    def weight(self, state):
        state["epochs"] = state.get("epochs", 0.0) + 1
        return self.ce_weight / state["epochs"]


@strategy
class Meddler(Plain):
    """Changes a setting, which the unwatched training fails by."""

    def given(self, batch):
        torch.set_default_dtype(torch.float64)
        return super().given(batch)


@strategy
class Settled(Strategy):
    """Without any number to set."""

    name = "settled"

    def loss(self, batch):
        return {"ce": F.cross_entropy(batch.student.logits, batch.targets)}


def findings(subject):
    return {name: carried_out(check, subject) for name, check in CHECKS.items()}


def failing(found):
    return [name for name, finding in found.items() if finding.failed]


LONG = ("shared_memory", "warm_variable")


def some_slow(names):
    marked = [pytest.param(name, marks=pytest.mark.slow) for name in LONG]
    return [*(name for name in names if name not in LONG), *marked]


@pytest.mark.parametrize("name", some_slow(PIECES))
def test_a_piece_of_the_museum_fails_its_check_alone(name):
    things = find(str(MUSEUM / f"{name}.py")).things
    [thing] = [thing for thing in things if thing.kind == "strategy"]
    check, said = PIECES[name]
    found = findings(thing.subject)
    assert failing(found) == [check]
    assert said in found[check].said


@pytest.mark.parametrize("kind", [Plain, pytest.param(Loop, marks=pytest.mark.slow)])
def test_a_sound_one_passes_all(kind):
    subject = of_class(kind).subject
    before = global_generators()
    assert {f.status for f in findings(subject).values()} == {"passed"}
    assert global_generators()["random"] == before["random"]


def test_company_is_in_both_orders_and_has_another_setting(monkeypatch):
    subject = of_class(Plain).subject
    seen = []

    def spy(self, *args, company=(), last=False, **more):
        if company:
            seen.append((company, last))
        return ALIKE

    monkeypatch.setattr(repeating, "_repeatable", lambda _: ALIKE)
    monkeypatch.setattr(type(subject), "train", spy)
    CHECKS["company"].look(subject)
    beside = ("label_smoothing", "scratch", "plain[ce_weight=0.5]")
    assert seen == [(beside, False), (beside, True)]
    assert _other_setting(of_class(Settled).subject) == ""


def test_what_cannot_be_repeated_is_left_to_the_check_that_says_why():
    found = findings(of_class(Meddler).subject)
    assert {f.status for f in found.values()} == {"does not apply"}
    assert "settings-unchanged" in found["same-seed"].said


BITS = {
    "status": "finished",
    "reason": None,
    "curves": {"top1": [10.0, 20.0], "loss/ce": [2.0, 1.0]},
    "weights": "abc",
    "measures": {"top1": 20.0, "ece": None},
}


ALIKE = SimpleNamespace(bits=BITS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"status": "failed", "reason": "broke"}, "the run ends, and broke"),
        (
            {"curves": {"top1": [10.0, 21.0], "loss/ce": [3.0, 1.0]}},
            "the curve 'loss/ce' has 2.0 and 3.0 in epoch 1",
        ),
        (
            {"curves": {"top1": [10.0, 20.0], "loss/ce": [2.0]}},
            "the curve 'loss/ce' has 1.0 and None in epoch 2",
        ),
        ({"weights": "abd"}, "the student's weights, while all curves are equal"),
        ({"measures": {"top1": 20.0, "ece": 1.0}}, "the measure 'ece' is None and 1.0"),
    ],
)
def test_what_differs_first_is_said(change, said):
    assert difference(BITS, {**BITS, **change}) == said
