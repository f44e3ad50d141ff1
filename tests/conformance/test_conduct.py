"""Checks of how a strategy treats what it shares: each names its mistakes alone."""

from __future__ import annotations

import gc
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.api import Strategy
from kdbench.conformance import conduct, training, watched
from kdbench.conformance.checks import carried_out, checks_of
from kdbench.conformance.targets import find, of_class
from kdbench.settings import put_back, settings

MUSEUM = Path(__file__).parents[1] / "museum"
CHECKS = {
    c.name: c
    for c in checks_of("strategy")
    if c.look.__module__ in (conduct.__name__, training.__name__)
}
OWN = [name for name, c in CHECKS.items() if c.look.__module__ == conduct.__name__]
PIECES = {
    "centres_teacher": ("inputs-unchanged", "teacher 0: logits (in epoch 1, step 1)"),
    "seeds_globally": ("own-randomness", "the global generator of torch"),
    "borrowed_noise": ("own-randomness", "the global generator of random"),
    "sets_default_dtype": ("settings-unchanged", "torch's default dtype"),
    "hoards_answers": ("no-memory-leak", "grow by 2048 to 2048 bytes in each of 4"),
}


strategy = dataclass(frozen=True, kw_only=True)


@strategy
class Plain(Strategy):
    """Cross-entropy."""

    name = "plain"

    def loss(self, batch):
        self.act(batch)
        return {"ce": F.cross_entropy(batch.student.logits, batch.targets)}

    def act(self, batch):
        pass


@strategy
class Loop(Plain):
    """Cross-entropy in a loop of its own."""

    def train(self, context):
        student = context.students[0]
        optimiser = context.optimiser(student.parameters())
        self.begin()
        for _ in context.epochs():
            for batch in context.batches():
                loss = F.cross_entropy(student(batch.inputs), batch.targets)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                self.act(batch)
        return student

    def begin(self):
        pass


@strategy
class Draws(Plain):
    """Draws as it should: torch's generator in adapters, its own in the loss."""

    def adapters(self, student, teacher):
        return nn.Linear(2, 2)

    def loss(self, batch):
        noise = torch.rand(2, generator=batch.generator)
        return {**super().loss(batch), "own": batch.adapters(noise).square().sum()}


@strategy
class ByData(Plain):
    """Writes by way of .data."""

    def act(self, batch):
        batch.teacher.logits.data.mul_(2.0)


@strategy
class OwnAnswer(Plain):
    """Writes to its student's answer."""

    def loss(self, batch):
        logits = batch.student.logits.mul_(1.0)
        return {"ce": F.cross_entropy(logits, batch.targets)}


@strategy
class WritingLoop(Loop):
    """Writes to its batch."""

    def act(self, batch):
        batch.inputs.add_(1.0)


@strategy
class DrawsInAdapters(Plain):
    """Draws from Python's generator for its adapters."""

    def adapters(self, student, teacher):
        random.random()  # noqa: S311


@strategy
class DrawingLoop(Loop):
    """Draws from Python's generator."""

    def act(self, batch):
        random.random()  # noqa: S311


@strategy
class InSupports(Plain):
    """Changes a setting before anything is trained."""

    def supports(self, student, teacher):
        torch.set_default_dtype(torch.float64)


@strategy
class InAdapters(Plain):
    """Changes a setting where adapters are built."""

    def adapters(self, student, teacher):
        torch.set_default_dtype(torch.float64)


@strategy
class BeforeItsLoop(Loop):
    """Changes a setting before it asks for a batch."""

    def begin(self):
        torch.set_default_dtype(torch.float64)


@strategy
class InItsLoop(Loop):
    """Changes a setting in each step."""

    def act(self, batch):
        torch.set_default_dtype(torch.float64)


@strategy
class LeakyLoop(Loop):
    """Keeps each batch."""

    def act(self, batch):
        KEPT.append(batch.inputs)


@strategy
class Fills(Plain):
    """Fills a memory towards the end, and not from epoch to epoch."""

    def act(self, batch):
        if batch.progress > 0.85:
            KEPT.append(batch.teacher.logits.clone())


@strategy
class Raises(Plain):
    """Fails, which is for another check to name."""

    def act(self, batch):
        raise KeyError


KEPT: list[torch.Tensor] = []


@pytest.fixture(autouse=True)
def _empty():
    before = settings()
    KEPT.clear()
    yield
    KEPT.clear()
    assert set(put_back(before)) <= {"torch's number of threads"}


def findings(subject):
    return {name: carried_out(check, subject) for name, check in CHECKS.items()}


def failing(found):
    return [name for name, finding in found.items() if finding.failed]


@pytest.mark.parametrize("name", PIECES)
def test_a_piece_of_the_museum_fails_its_check_alone(name):
    things = find(str(MUSEUM / f"{name}.py")).things
    [thing] = [thing for thing in things if thing.kind == "strategy"]
    check, said = PIECES[name]
    found = findings(thing.subject)
    assert failing(found) == [check]
    assert said in found[check].said


@pytest.mark.parametrize("kind", [Draws, Loop, Fills])
def test_a_sound_one_passes_all(kind):
    found = findings(of_class(kind).subject)
    assert {found[name].status for name in OWN} == {"passed"}


@pytest.mark.parametrize(
    ("kind", "check", "said"),
    [
        (ByData, "inputs-unchanged", "teacher 0: logits"),
        (OwnAnswer, "inputs-unchanged", "student 0: logits"),
        (WritingLoop, "inputs-unchanged", "inputs (in epoch 1, step 1)"),
        (DrawsInAdapters, "own-randomness", "when its adapters were built"),
        (DrawingLoop, "own-randomness", "the global generator of random"),
        (InSupports, "settings-unchanged", "supports() changed torch's default"),
        (InAdapters, "settings-unchanged", "before training"),
        (BeforeItsLoop, "settings-unchanged", "torch's default dtype"),
        (InItsLoop, "settings-unchanged", "in epoch 1, step 1"),
        (LeakyLoop, "no-memory-leak", "in each of 4 epochs in a row"),
    ],
)
def test_each_mistake_fails_one_check(kind, check, said):
    found = findings(of_class(kind).subject)
    assert failing(found) == [check]
    assert said in found[check].said


def test_a_training_that_fails_otherwise_is_named_once():
    found = findings(of_class(Raises).subject)
    assert failing(found) == ["trains"]
    assert {found[name].status for name in OWN} == {"does not apply"}


@pytest.mark.parametrize("before", [True, False])
def test_what_the_process_had_frozen_stays_so(monkeypatch, before):
    """Else all of it is walked through by each collection from then on."""
    monkeypatch.setattr(watched, "_has_frozen", lambda: before)
    with watched.passed_over():
        assert gc.get_freeze_count()
    assert bool(gc.get_freeze_count()) == before
    gc.freeze()  # as the session had it
