"""Learners of small perceptrons, trained stacked or not, for tests of stacking."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.api import Strategy
from kdbench.data.digits import DIGITS, load
from kdbench.engine.feed import Feed
from kdbench.engine.learner import Learner
from kdbench.engine.lockstep import train
from kdbench.engine.saver import Saver
from kdbench.engine.teacher import TeacherStage
from kdbench.models.mlp import mlp
from kdbench.models.taps import TappedModel
from kdbench.records import Recipe, Run

CPU = torch.device("cpu")
RECIPE = Recipe(
    epochs=2, batch_size=128, lr=0.02, schedule="cosine", drop_last=True, stack=True
)
PLAIN = mlp(24, 16)
NORMED = mlp(24, 16, batch_norm=True)


@dataclass(frozen=True, kw_only=True)
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


class Raises(Plain):
    def loss(self, batch):
        if batch.epoch >= 0.5:
            raise KeyError("lost it")
        return super().loss(batch)


class Nan(Plain):
    def loss(self, batch):
        return {"ce": batch.student.logits.sum() * float("nan")}


class Infinite(Plain):
    def loss(self, batch):
        return {"ce": (batch.student.features["stage1"] * 1e30).pow(2).sum()}


class WritesInputs(Plain):
    def loss(self, batch):
        batch.inputs.zero_()
        return super().loss(batch)


class WritesToItself(Plain):
    """To its own features, which is nobody else's business."""

    def loss(self, batch):
        batch.student.features["stage1"].detach().zero_()
        return super().loss(batch)


class BadGradient(Plain):
    """An adapter that its optimiser cannot step."""

    def adapters(self, student, teacher):
        return nn.Embedding(10, 10, sparse=True)

    def loss(self, batch):
        rows = batch.adapters(batch.targets)
        return {"ce": F.mse_loss(batch.student.logits, rows)}


class NeedsItsGraph(Plain):
    """The logits' sensitivity to the features, which slices cannot tell."""

    def loss(self, batch):
        logits, pooled = batch.student.logits, batch.student.features["pooled"]
        [slope] = torch.autograd.grad(logits.sum(), pooled, create_graph=True)
        terms = super().loss(batch)
        return {**terms, "slope": 0.1 * slope.square().mean()}


class FirstStageOnly(Plain):
    """Nothing behind the first stage is trained, nor decays."""

    def loss(self, batch):
        return {"first": batch.student.features["stage1"].square().mean()}


class FirstStageLater(Plain):
    """Everything is trained in the first epoch, one stage in the second."""

    def loss(self, batch):
        first = {"first": batch.student.features["stage1"].square().mean()}
        return first if batch.epoch >= 1 else super().loss(batch)


class LiveClassifier(Plain):
    """A loss through the student's own layer reaches its weights."""

    def loss(self, batch):
        pooled = batch.student.features["pooled"]
        noisy = batch.student.classifier(pooled + 1)
        return {**super().loss(batch), "noisy": F.cross_entropy(noisy, batch.targets)}


class InPlace(Plain):
    """Logits changed in place, as torch allows of any student."""

    def loss(self, batch):
        batch.student.logits.mul_(0.5)
        return super().loss(batch)


class Adapted(Plain):
    """A trained projection of the features."""

    def adapters(self, student, teacher):
        return nn.Linear(student.shapes["pooled"][0], teacher.shapes["pooled"][0])

    def loss(self, batch):
        projected = batch.adapters(batch.student.features["pooled"])
        hint = F.mse_loss(projected, batch.teacher.features["pooled"])
        return {**super().loss(batch), "hint": hint}


class Random(Plain):
    """Draws from the global stream and from its own."""

    def loss(self, batch):
        noise = torch.rand(()) + torch.rand((), generator=batch.generator)
        return {k: v * (1 + 0.1 * noise) for k, v in super().loss(batch).items()}


class Group:
    """Learners of one teacher, trained with or without stacking."""

    def __init__(self, recipe: Recipe = RECIPE, student=PLAIN, batch_norm=False):
        self.recipe, self.student = recipe, student
        self.feed = Feed(load(None, False), DIGITS.task, recipe, 0, CPU)
        self.spec = mlp(48, 32, batch_norm=batch_norm)
        torch.manual_seed(0)
        self.teacher = DIGITS.build(self.spec).eval()

    def learner(self, strategy: Strategy, label: str = "") -> Learner:
        students = 1 if strategy.students == 1 else strategy.students
        run = Run(
            dataset="digits",
            pair="p",
            teachers=(self.spec.name,),
            students=(self.student.name,) * students,
            strategy=strategy.name,
            label=label or type(strategy).__name__,
            params={"label": label or type(strategy).__name__},
            seed=0,
            recipe=self.recipe,
            teacher_runs=("t",),
            code={},
        )
        known = [(self.spec, self.teacher)]
        specs = [self.student] * students
        return Learner(run, strategy, specs, known, [0], self.feed, DIGITS)

    def stage(self, learners) -> TeacherStage:
        taps = sorted({tap for x in learners for tap in x.strategy.taps})
        precision = self.recipe.precision
        return TeacherStage([TappedModel(self.spec, self.teacher, taps, precision)])

    def train(self, *learners: Learner, folder: Path, stop=lambda: False) -> None:
        self.dropped: list[Learner] = []
        self.told: list[str] = []
        train(
            learners,
            self.stage(learners),
            self.feed,
            Saver(folder, 1e9),
            stop,
            lambda x, *_: self.told.append(x.run.label),
            self.dropped.append,
        )


def both(tmp_path, make, recipe=RECIPE, **given):
    """The same learners trained stacked and unstacked."""
    trained = []
    for stack in (True, False):
        group = Group(recipe.model_copy(update={"stack": stack}), **given)
        learners = [group.learner(strategy, str(k)) for k, strategy in make()]
        group.train(*learners, folder=tmp_path)
        trained.append(learners)
    return zip(*trained, strict=True)


def assert_alike(one: Learner, two: Learner, tolerance: float = 1e-5) -> None:
    assert (one.failure, two.failure) == (None, None)
    for part in ("student", "adapters"):
        modules = getattr(one, part), getattr(two, part)
        if modules[0] is None:
            continue
        states = [module.state_dict() for module in modules]
        assert states[0].keys() == states[1].keys()
        within = tolerance if part == "student" else 10 * tolerance
        for name, value in states[0].items():
            torch.testing.assert_close(
                value,
                states[1][name],
                rtol=within,
                atol=within,
                msg=lambda m, n=name: f"{one.run.label} {n}: {m}",
            )
    assert one.trace.curves.keys() == two.trace.curves.keys()
    for name, curve in one.trace.curves.items():
        error = 0.7 if name == "top1" else 100 * tolerance  # three of the test items
        assert curve == pytest.approx(two.trace.curves[name], abs=error), name


def moved(learner: Learner) -> bool:
    """Whether its student is no longer what it was at the start."""
    group = Group(learner.recipe)
    fresh = group.learner(learner.strategy, learner.run.label)
    pairs = zip(learner.student.parameters(), fresh.student.parameters(), strict=True)
    return any(not torch.equal(a, b) for a, b in pairs)
