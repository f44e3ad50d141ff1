"""Checks of a training as such: each names its mistakes, and no other does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.api import Phase, Strategy
from kdbench.conformance import training
from kdbench.conformance.checks import carried_out, checks_of
from kdbench.conformance.targets import find, of_class

MUSEUM = Path(__file__).parents[1] / "museum"
CHECKS = {
    c.name: c for c in checks_of("strategy") if c.look.__module__ == training.__name__
}
PIECES = {
    "late_exception": ("trains", "ValueError: the second epoch was never tried"),
    "late_nan": ("trains", "not finite in epoch 2: ce, kd"),
    "exits_in_loss": ("trains", "SystemExit: enough"),
    "bare_tensor": ("trains", "must return a dict of named terms, not tensor("),
    "endless_loop": ("trains", "without the end of an epoch"),
    "logs_accuracy": ("finite-terms", "'accuracy' depends neither on a student nor"),
    "lively_teacher": ("teacher-frozen", "a teacher left eval mode"),
    "tunes_classifier": ("teacher-frozen", "weights or buffers changed"),
    "sleepy_student": ("student-mode", "in epoch 2 the student is in eval mode"),
}


def ce(batch):
    return F.cross_entropy(batch.student.logits, batch.targets)


strategy = dataclass(frozen=True, kw_only=True)


@strategy
class Plain(Strategy):
    """Cross-entropy."""

    name = "plain"

    def loss(self, batch):
        return {"ce": ce(batch)}


@strategy
class Loop(Plain):
    """Cross-entropy in a loop of its own."""

    def train(self, context):
        student = context.students[0]
        optimiser = context.optimiser(student.parameters())
        for _ in context.epochs():
            self.begin(context)
            for batch in context.batches():
                loss = F.cross_entropy(student(batch.inputs), batch.targets)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                self.after(context, batch)
        return student

    def begin(self, context):
        context.students[0].train()

    def after(self, context, batch):
        pass


@strategy
class LooksOnly(Loop):
    """Evaluates its student itself, and goes back to train mode."""

    def after(self, context, batch):
        student = context.students[0].eval()
        with torch.no_grad():
            student(batch.inputs)
        student.train()


@strategy
class DriftingTeacher(Loop):
    """The teacher is in train mode for a moment in each step."""

    def after(self, context, batch):
        teacher = context.teachers[0].train()
        with torch.no_grad():
            teacher(batch.inputs)
        teacher.eval()


@strategy
class FrozenNorm(Loop):
    """One module of the student stays in eval mode."""

    def begin(self, context):
        student = context.students[0].train()
        norms = [m for m in student.modules() if isinstance(m, nn.BatchNorm2d)]
        norms[0].eval()


@strategy
class Coming(Plain):
    """A term that comes later."""

    def loss(self, batch):
        late = {"late": 0.1 * ce(batch)} if batch.progress > 0.5 else {}
        return {"ce": ce(batch), **late}


@strategy
class InPhases(Plain):
    """Other terms in another phase, which is as it should be."""

    def phases(self):
        return Phase(name="first", epochs=1), Phase()

    def loss(self, batch):
        return {"hint" if batch.phase else "ce": ce(batch)}


@strategy
class Whole(Plain):
    """A term of whole numbers."""

    def loss(self, batch):
        return {"ce": ce(batch), "items": torch.tensor(len(batch.targets))}


@strategy
class Numbered(Plain):
    """A term whose name is a number."""

    def loss(self, batch):
        return {"ce": ce(batch), 2: 0.1 * ce(batch)}


@strategy
class Sinks(Plain):
    """A term falls ever deeper, until it is no number any more."""

    def loss(self, batch):
        depth = math.inf if batch.epoch >= 2 else 20.0 * (1 + int(batch.epoch))
        return {"ce": ce(batch), "relation": 0.1 * ce(batch) - depth}


@strategy
class NoTeacher(Plain):
    """Learns from no teacher."""

    teachers = 0


def findings(subject):
    return {name: carried_out(check, subject) for name, check in CHECKS.items()}


def failing(found):
    return [name for name, finding in found.items() if finding.failed]


def examined(kind):
    return findings(of_class(kind).subject)


@pytest.mark.parametrize("name", PIECES)
def test_a_piece_of_the_museum_fails_its_check_alone(name):
    things = find(str(MUSEUM / f"{name}.py")).things
    [thing] = [thing for thing in things if thing.kind == "strategy"]
    check, said = PIECES[name]
    found = findings(thing.subject)
    assert failing(found) == [check]
    assert said in found[check].said
    assert "toy-convnets" in found[check].said or check != "trains"


@pytest.mark.parametrize("kind", [Plain, InPhases])
def test_a_sound_one_passes_all(kind):
    assert {f.status for f in examined(kind).values()} == {"passed"}


def test_a_sound_loop_passes_what_is_for_loops():
    found = examined(LooksOnly)
    assert found.pop("finite-terms").status == "does not apply"
    assert {f.status for f in found.values()} == {"passed"}


@pytest.mark.parametrize(
    ("kind", "check", "said"),
    [
        (Coming, "finite-terms", "the terms are 'ce', 'late', and in the phase's"),
        (Sinks, "trains", "'loss/relation' falls without end"),
        (Whole, "finite-terms", "'items' is of torch.int64"),
        (Numbered, "finite-terms", "name is 2, which is no text"),
        (DriftingTeacher, "teacher-frozen", "weights or buffers changed"),
        (FrozenNorm, "student-mode", "is in eval mode in a forward pass"),
    ],
)
def test_each_mistake_fails_one_check(kind, check, said):
    found = examined(kind)
    assert failing(found) == [check]
    assert said in found[check].said


def test_who_is_shown_no_teacher_cannot_touch_one():
    assert examined(NoTeacher)["teacher-frozen"].status == "does not apply"
