"""Graphed steps are plain steps: by a stand-in for the device that needs no GPU."""

from __future__ import annotations

import dataclasses
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.api import Outputs, Phase, Strategy
from kdbench.data.digits import DIGITS, load
from kdbench.engine.feed import Feed
from kdbench.engine.graphs import GRAPH, WARM_UP
from kdbench.engine.learner import Learner
from kdbench.engine.lesson import Lesson
from kdbench.engine.teacher import TeacherStage, weights_hash
from kdbench.models.convnet import convnet
from kdbench.models.taps import TappedModel
from kdbench.records import Recipe, Run

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, batch_size=96, lr=0.02, crop_padding=1, flip=True)
"""Digits have 1347 training items: 14 batches and one of 3 items."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distils(Strategy):
    """Cross-entropy, and a little of the teacher."""

    name = "distils"
    taps = ("stage1", "pooled")
    kd_weight: float = 1.0

    def loss(self, batch):
        teacher = batch.teacher.logits.softmax(1)
        return {
            "ce": F.cross_entropy(batch.student.logits, batch.targets),
            "kd": self.kd_weight * F.cross_entropy(batch.student.logits, teacher),
        }


class Hints(Distils):
    """Features by an adapter, in float64, and a bank of what it saw."""

    def adapters(self, student, teacher):
        module = nn.Linear(student.shapes["pooled"][0], teacher.shapes["pooled"][0])
        module.register_buffer("bank", torch.zeros(1347, teacher.shapes["pooled"][0]))
        return module

    def loss(self, batch):
        own, goal = (x.features["pooled"] for x in (batch.student, batch.teacher))
        bank = batch.adapters.bank
        gap = batch.adapters(own) - goal - 0.1 * bank[batch.index]
        bank[batch.index] = goal
        return super().loss(batch) | {"hint": gap.double().square().mean()}


class Mixes(Distils):
    """A further view, answered by both sides."""

    views = ("mixup",)

    def loss(self, batch):
        view = batch.views["mixup"]
        own, goal = view.students[0].logits, view.teachers[0].logits
        return super().loss(batch) | {
            "view": (view.share * (own - goal).square().mean(1)).mean()
        }


class Peers(Distils):
    """Two students, of few labels."""

    students = 2
    label_fraction = 0.5

    def loss(self, batch):
        one, two = (x.logits for x in batch.students)
        each = F.cross_entropy(one, batch.targets, reduction="none")
        ce = (each * batch.labelled).sum() / batch.labelled.sum().clamp(min=1)
        return {"ce": ce, "mutual": (one - two).square().mean()}


class InTurn(Distils):
    """Two phases; the second learns from the student of the first."""

    students = 2

    def phases(self):
        first = Phase(name="first", students=(1,), epochs=1)
        return (first, Phase(students=(0,), teachers=(), peers=(1,)))


class OneStep(Distils):
    """Once per batch, whoever asks."""

    def loss(self, batch):
        goal = batch.teacher.once(doubled)
        return {"mse": (2 * batch.student.logits - goal).square().mean()}


def doubled(outputs: Outputs) -> torch.Tensor:
    return 2 * outputs.logits


GRAPHABLE = [Distils, Hints, Mixes, Peers, InTurn, OneStep]


class ReadsEpoch(Distils):
    def loss(self, batch):
        return {k: v * (1 + batch.epoch) for k, v in super().loss(batch).items()}


class ReadsProgressInHeads(Distils):
    """Through a copy of the batch."""

    def loss(self, batch):
        part = dataclasses.replace(batch, students=batch.students[:1])
        return {k: v * (2 - part.progress) for k, v in super().loss(part).items()}


class DrawsItsOwn(Distils):
    def loss(self, batch):
        noise = torch.rand(len(batch.targets), 1, generator=batch.generator)
        goal = batch.teacher.logits + noise
        return {"mse": (batch.student.logits - goal).square().mean()}


class DrawsGlobally(Distils):
    def loss(self, batch):
        logits = F.dropout(batch.student.logits, 0.5)
        return {"ce": F.cross_entropy(logits, batch.targets)}


class Counts(Distils):
    """A number of Python's, and a buffer that is another one after every step."""

    def adapters(self, student, teacher):
        module = nn.Module()
        module._seen = 0
        module.register_buffer("last", torch.zeros(10))
        return module

    def loss(self, batch):
        batch.adapters._seen += 1
        return {k: v / batch.adapters._seen for k, v in super().loss(batch).items()}


class Replaces(Counts):
    def loss(self, batch):
        last = batch.adapters.last
        batch.adapters.last = batch.teacher.logits.mean(0)
        return Distils.loss(self, batch) | {
            "drift": (batch.student.logits.mean(0) - last).square().mean()
        }


OBSTACLES = {
    ReadsEpoch: "reads batch.epoch",
    ReadsProgressInHeads: "reads batch.progress",
    DrawsItsOwn: "reads batch.generator",
    DrawsGlobally: "draws random numbers",
    Counts: "something of its own",
    Replaces: "something of its own",
}


class Bench:
    """A teacher, a feed and learners around them, with a recorder each."""

    def __init__(self, recipe=RECIPE):
        self.recipe = recipe
        self.feed = Feed(load(None, False), DIGITS.task, recipe, 0, CPU)
        self.spec, self.small = convnet(8), convnet(4)
        torch.manual_seed(0)
        self.teacher = DIGITS.build(self.spec)
        with torch.no_grad():  # running statistics that are not the initial ones
            self.teacher(self.feed.at(0, 0).inputs)
        taps = TappedModel(self.spec, self.teacher.eval(), ["stage1", "pooled"])
        self.stage = TeacherStage([taps])

    def learner(self, strategy, recorder=None):
        run = Run(
            dataset="digits",
            pair="p",
            teachers=("convnet_8",),
            students=("convnet_4",) * strategy.students,
            strategy=strategy.name,
            label=strategy.name,
            params={},
            seed=0,
            recipe=self.recipe,
            teacher_runs=("t",),
            code={},
        )
        specs = [self.small] * strategy.students
        sides = [(self.spec, self.teacher)]
        made = Learner(run, strategy, specs, sides, [0], self.feed, DIGITS, recorder)
        if recorder is not None:
            recorder.learner = made
        return made

    def train(self, learner, steps=None):
        """To the end, or for some steps; whatever fails is raised."""
        while learner.position[0] < self.recipe.epochs:
            epoch, first = learner.position
            for step in range(first, self.feed.steps):
                learner.step(Lesson(self.feed, self.stage, epoch, step))
                assert learner.failure is None
                steps = None if steps is None else steps - 1
                if steps == 0:
                    return learner
            learner.end_epoch()
            assert learner.failure is None
        return learner


def trained(strategy, recorder=None, recipe=RECIPE):
    bench = Bench(recipe)
    return bench.train(bench.learner(strategy, recorder))


def assert_same(one, other):
    assert weights_hash(one.modules) == weights_hash(other.modules)
    for part, twin in [(one.adapters, other.adapters)]:
        assert (part is None) == (twin is None)
        if part is not None:
            assert weights_hash(part) == weights_hash(twin)
    assert one.trace.curves == other.trace.curves


@pytest.mark.parametrize("kind", GRAPHABLE, ids=lambda c: c.__name__)
def test_graphed_steps_give_the_bits_of_plain_ones(kind, replaying):
    """Also with a smaller batch in every epoch, after which replays go on."""
    recorder = replaying()
    graphed = trained(kind(), recorder)
    assert graphed._graphed.obstacle == ""
    phases = len(kind().phases())
    epochs = RECIPE.epochs + phases - 1
    assert recorder.did == {
        "apart": phases * WARM_UP,
        "capture": phases,
        "replay": 14 * epochs - phases * WARM_UP,
    }
    assert_same(graphed, trained(kind()))


@pytest.mark.parametrize("kind", OBSTACLES, ids=lambda c: c.__name__)
def test_what_a_replay_cannot_repeat_stays_plain(kind, replaying):
    recorder = replaying()
    learner = trained(kind(), recorder)
    assert OBSTACLES[kind] in learner._graphed.obstacle
    assert recorder.did == {"apart": 2}
    assert_same(learner, trained(kind()))


def test_a_step_that_waits_for_the_device_stays_plain(replaying):
    recorder = replaying()
    recorder.waits = True
    learner = trained(Distils(), recorder)
    assert "waits" in learner._graphed.obstacle
    assert_same(learner, trained(Distils()))


def test_a_ramp_stays_plain_from_the_first_step(replaying):
    recorder = replaying()
    ramp = Distils.configured({"kd_weight": "1->0.5"})
    learner = trained(ramp, recorder)
    assert "changes over the training" in learner._graphed.obstacle
    assert recorder.did == {}
    assert_same(learner, trained(ramp))


def test_a_capture_that_fails_leaves_no_trace(replaying):
    """The device refuses after some of the step was asked for."""

    class CannotCapture(replaying):
        def capture(self, act):
            def part():
                act()
                raise RuntimeError("operation not permitted when stream is capturing")

            return super().capture(part)

    recorder = CannotCapture()
    learner = trained(Hints(), recorder)
    assert "operation not permitted" in learner._graphed.obstacle
    assert recorder.did == {"apart": WARM_UP, "capture": 1}
    assert_same(learner, trained(Hints()))


def test_a_step_that_writes_to_its_copies_is_not_replayed(replaying):
    """Nobody else sees these, so that the check for shared tensors does not."""

    class Late(Distils):
        def loss(self, batch):
            if self._late:
                batch.teacher.logits.mul_(0.5)
            return super().loss(batch)

    late = Late()
    object.__setattr__(late, "_late", False)
    recorder, bench = replaying(), Bench()
    learner = bench.train(bench.learner(late, recorder), WARM_UP)
    object.__setattr__(late, "_late", True)
    epoch, step = learner.position
    learner.step(Lesson(bench.feed, bench.stage, epoch, step))
    assert "writes" in learner._graphed.obstacle
    assert learner.failure == "wrote in place to a tensor shared by all learners"


def test_resuming_captures_anew_and_gives_the_same_bits(replaying):
    """Stopped after the capture, and in the middle of the steps before it."""
    undisturbed = trained(Hints())
    for steps in (WARM_UP + 4, WARM_UP - 1):
        half = Bench()
        stopped = half.train(half.learner(Hints(), replaying()), steps)
        state = deepcopy(stopped.state())
        other, recorder = Bench(), replaying()
        resumed = other.learner(Hints(), recorder)
        resumed.restore(state)
        other.train(resumed)
        assert recorder.did["capture"] == 1
        assert_same(resumed, undisturbed)


def test_training_that_resumes_at_the_smaller_batch_captures_the_whole_one(replaying):
    half = Bench()
    last = half.feed.steps - 1
    state = deepcopy(half.train(half.learner(Distils()), last).state())
    other, recorder = Bench(), replaying()
    resumed = other.learner(Distils(), recorder)
    resumed.restore(state)
    other.train(resumed)
    assert recorder.did == {"apart": 1 + WARM_UP, "capture": 1, "replay": 14 - WARM_UP}
    assert_same(resumed, trained(Distils()))


def test_learners_of_a_group_do_not_touch_each_other(replaying):
    """All of them lose what they left in the pool as soon as the next one replays."""

    pool = []

    class Shared(replaying):
        def capture(self, act):
            result, replay = super().capture(act)
            groups = self.learner.optimiser.param_groups
            left = [p.grad for group in groups for p in group["params"]]
            pool.extend([*(x.detach() for x in result.values()), *left])

            def alone():
                for tensor in pool:
                    tensor.fill_(torch.nan)
                replay()

            return result, alone

    bench = Bench()
    together = [bench.learner(kind(), Shared()) for kind in (Distils, Hints, Distils)]
    for epoch in range(RECIPE.epochs):
        for step in range(bench.feed.steps):
            lesson = Lesson(bench.feed, bench.stage, epoch, step)
            for learner in together:
                learner.step(lesson)
        for learner in together:
            learner.end_epoch()
    assert all(x._graphed.is_captured for x in together)
    for learner, kind in zip(together, (Distils, Hints, Distils), strict=True):
        assert_same(learner, trained(kind()))


def test_a_graph_copies_only_what_its_learner_asks_for(replaying):
    """What others tap or see is not there in every company."""

    class Lean(Distils):
        taps = ("pooled",)

    bench = Bench()
    lean, mixing = bench.learner(Lean(), replaying()), bench.learner(Mixes())
    for step in range(WARM_UP + 2):
        lesson = Lesson(bench.feed, bench.stage, 0, step)
        mixing.step(lesson)
        lean.step(lesson)
    assert set(lean._graphed._captured.places) == {
        "inputs",
        "targets",
        "index",
        "('', 0) logits",
        "('', 0) pooled",
    }


def test_replays_are_charged_as_such(replaying):
    learner = trained(Distils(), replaying())
    cost = learner.trace.cost
    assert cost[f"{GRAPH}_s"] > 0
    assert cost["backward_s"] > 0
    parts = sum(cost[f"{x}_s"] for x in ("student", "loss", "backward", "optimiser"))
    assert parts + cost[f"{GRAPH}_s"] <= cost["own_s"]


def test_stacked_students_have_no_graphs(replaying):
    recipe = RECIPE.model_copy(update={"stack": True})
    assert not Bench(recipe).learner(Distils(), replaying())._graphed
