"""Learners of small convnets, trained and billed, for tests of what they cost."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from kdbench.api import Strategy
from kdbench.data.digits import DIGITS, load
from kdbench.engine.feed import Feed
from kdbench.engine.learner import Learner
from kdbench.engine.lockstep import train
from kdbench.engine.saver import Saver
from kdbench.engine.teacher import TeacherStage
from kdbench.models.convnet import convnet
from kdbench.models.taps import TappedModel
from kdbench.records import Recipe, Run

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, batch_size=256, lr=0.02, schedule="cosine")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plain(Strategy):
    """Cross-entropy and a little of the teacher."""

    name = "plain"
    taps = ("stage1", "pooled")

    def loss(self, batch):
        teacher = batch.teacher.logits.softmax(1)
        return {
            "ce": F.cross_entropy(batch.student.logits, batch.targets),
            "kd": F.cross_entropy(batch.student.logits, teacher),
        }


class Ticks:
    """A clock that stands still but where a test lets time pass: in `passed` by what.

    Seconds are whole, so that sums are exact.
    """

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()

    def __call__(self) -> float:
        return float(self.passed.total())

    def let(self, what: str, seconds: int) -> None:
        self.passed[what] += seconds

    def within(
        self, function: Callable[..., Any], what: str, seconds: int
    ) -> Callable[..., Any]:
        """The function, each call of which takes so long."""

        def slow(*given: Any, **named: Any) -> Any:
            self.let(what, seconds)
            return function(*given, **named)

        return slow


def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    """The clock by which the training loop, and `Bench`, now go."""
    ticks = Ticks()
    for place in ("clock", "account", "lockstep"):
        monkeypatch.setattr(f"kdbench.engine.{place}.perf_counter", ticks)
    monkeypatch.setattr("kdbench.engine.saver.monotonic", ticks)
    monkeypatch.setitem(globals(), "perf_counter", ticks)
    return ticks


class Bench:
    """A teacher, a feed, and learners around them."""

    def __init__(self, teacher=None, student=None, recipe=RECIPE) -> None:
        self.feed = Feed(load(None, False), DIGITS.task, recipe, 0, CPU)
        self.spec, self.small = teacher or convnet(8), student or convnet(4)
        torch.manual_seed(0)
        self.teacher = DIGITS.build(self.spec).eval()
        self.recipe = recipe

    def learner(self, strategy: type[Strategy] | Strategy = Plain) -> Learner:
        made = strategy() if isinstance(strategy, type) else strategy
        run = Run(
            dataset="digits",
            pair="p",
            teachers=(self.spec.name,),
            students=(self.small.name,),
            strategy=made.name,
            label=type(made).__name__,
            params={},
            seed=0,
            recipe=self.recipe,
            teacher_runs=("t",),
            code={},
        )
        teachers = [(self.spec, self.teacher)]
        return Learner(run, made, [self.small], teachers, [0], self.feed, DIGITS)

    def train(
        self, *learners: Learner, folder: Path, stop=lambda: False, every_s=1e9
    ) -> float:
        """Seconds that the loop took."""
        taps = sorted({tap for x in learners for tap in x.strategy.taps})
        stage = TeacherStage([TappedModel(self.spec, self.teacher, taps)])
        saver = Saver(folder, every_s)
        started = perf_counter()
        try:
            nothing = (lambda *_: None, lambda _: None)
            train(learners, stage, self.feed, saver, stop, *nothing)
        finally:
            self.wall = perf_counter() - started
        return self.wall
