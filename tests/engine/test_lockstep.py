"""One learner's failure is its own; the teacher stays frozen; modes are kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from kdbench.api import Strategy
from kdbench.data.digits import DIGITS, load
from kdbench.engine import Stopped, checkpoint
from kdbench.engine.feed import Feed
from kdbench.engine.learner import Learner
from kdbench.engine.lockstep import Saver, train
from kdbench.engine.teacher import TeacherStage, weights_hash
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


class Raises(Plain):
    def loss(self, batch):
        if batch.epoch >= 1:
            raise KeyError("lost it")
        return super().loss(batch)


class Exits(Plain):
    def loss(self, batch):
        raise SystemExit(3)


class Nan(Plain):
    def loss(self, batch):
        return {"ce": batch.student.logits.sum() * float("nan")}


class Explodes(Plain):
    def loss(self, batch):
        return {"ce": batch.student.logits.pow(2).sum().exp()}


class Writes(Plain):
    def loss(self, batch):
        batch.teacher.features["stage1"].relu_().mul_(0)
        return super().loss(batch)


class WritesInputs(Plain):
    def loss(self, batch):
        batch.inputs.zero_()
        return super().loss(batch)


class WritesTargets(Plain):
    def loss(self, batch):
        batch.targets.zero_()
        return super().loss(batch)


class WritesIndex(Plain):
    def loss(self, batch):
        batch.index.zero_()
        return super().loss(batch)


class ReplacesFeatures(Plain):
    def loss(self, batch):
        batch.teacher.features["stage1"] = 0
        return super().loss(batch)


class BreaksCheckpoints(Plain):
    def adapters(self, student, teacher):
        module = torch.nn.Linear(1, 1)
        module.state_dict = None
        return module


class NoScalar(Plain):
    def loss(self, batch):
        return {"ce": batch.student.logits}


class NoDict(Plain):
    def loss(self, batch):
        return batch.student.logits.sum()


class NoGradient(Plain):
    def loss(self, batch):
        return {"ce": batch.teacher.logits.sum()}


class UsesGlobalRandomness(Plain):
    def loss(self, batch):
        terms = super().loss(batch)
        return {k: v * (1 + 0.1 * torch.rand(())) for k, v in terms.items()}


MISTAKES = {
    Raises: "KeyError: 'lost it'",
    Exits: "SystemExit",
    Nan: "not finite in epoch 1: ce",
    Explodes: "not finite in epoch 1",
    Writes: "wrote in place",
    WritesInputs: "wrote in place",
    WritesTargets: "wrote in place",
    WritesIndex: "wrote in place",
    ReplacesFeatures: "does not support item assignment",
    BreaksCheckpoints: "'NoneType' object is not callable",
    NoScalar: "must be a scalar tensor",
    NoDict: "must return a dict",
    NoGradient: "do not depend on the student",
}


def run_of(name: str) -> Run:
    return Run(
        dataset="digits",
        pair="p",
        teachers=("convnet_8",),
        students=("convnet_4",),
        strategy=name,
        label=name,
        params={},
        seed=0,
        recipe=RECIPE,
        teacher_runs=("t",),
        code={},
    )


class Bench:
    """A teacher, a feed, and learners around them."""

    def __init__(self) -> None:
        self.feed = Feed(load(None, False), DIGITS.task, RECIPE, 0, CPU)
        self.spec, self.small = convnet(8), convnet(4)
        torch.manual_seed(0)
        self.teacher = DIGITS.build(self.spec)
        with torch.no_grad():  # running statistics that are not the initial ones
            self.teacher(self.feed.at(0, 0).inputs)

    def learner(self, cls: type[Plain]) -> Learner:
        strategy = cls()
        return Learner(
            run_of(cls.__name__),
            strategy,
            [self.small],
            [(self.spec, self.teacher)],
            [0],
            self.feed,
            DIGITS,
        )

    def stage(self) -> TeacherStage:
        taps = TappedModel(self.spec, self.teacher, ["stage1", "pooled"])
        return TeacherStage([taps])

    def train(self, *learners: Learner, folder: Path, stop=lambda: False) -> None:
        saver = Saver(folder, 0)
        tell, self.dropped = (lambda *_: None), []
        train(learners, self.stage(), self.feed, saver, stop, tell, self.dropped.append)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda c: c.__name__)
def test_a_failing_learner_changes_nobody_else(tmp_path, mistake):
    alone = Bench()
    good = alone.learner(Plain)
    alone.train(good, folder=tmp_path)
    company = Bench()
    first, bad, last = (company.learner(c) for c in (Plain, mistake, Plain))
    company.train(first, bad, last, folder=tmp_path)
    assert MISTAKES[mistake] in (bad.failure or "")
    assert company.dropped == [bad]
    for other in (first, last):
        assert other.failure is None
        assert weights_hash(other.student) == weights_hash(good.student)
        assert other.trace.curves == good.trace.curves


def test_global_randomness_in_a_strategy_is_its_own(tmp_path):
    one, two = Bench(), Bench()
    alone = one.learner(UsesGlobalRandomness)
    one.train(alone, folder=tmp_path)
    beside = two.learner(UsesGlobalRandomness)
    two.train(two.learner(Plain), beside, two.learner(Nan), folder=tmp_path)
    assert weights_hash(alone.student) == weights_hash(beside.student)


def test_the_teacher_stays_as_it_was(tmp_path):
    bench = Bench()
    before = weights_hash(bench.teacher)
    bench.train(bench.learner(Plain), folder=tmp_path)
    assert weights_hash(bench.teacher) == before
    assert not bench.teacher.training
    assert all(p.grad is None for p in bench.teacher.parameters())


@pytest.mark.parametrize("how", ["train", "write", "grad"])
def test_a_teacher_that_changes_is_caught(how):
    bench = Bench()
    stage = bench.stage()
    stage.frozen.check()
    if how == "train":
        bench.teacher.train()
    elif how == "write":
        bench.teacher.stage1[1].running_mean.data += 1
    else:
        bench.teacher.requires_grad_(True)
    with pytest.raises(RuntimeError, match="teacher"):
        stage.frozen.check()


def test_the_student_is_back_in_train_mode_after_every_evaluation(tmp_path):
    bench = Bench()
    learner = bench.learner(Plain)
    modes = []

    def tell(told, epoch, top1):
        modes.append(told.student.training)

    saver = Saver(tmp_path, 1e9)
    train([learner], bench.stage(), bench.feed, saver, bool, tell, print)
    assert modes == [True, True]


def test_the_learning_rate_follows_the_recipe(tmp_path):
    bench = Bench()
    learner = bench.learner(Plain)
    bench.train(learner, folder=tmp_path)
    last = (bench.feed.steps - 1) / bench.feed.steps
    expected = [RECIPE.lr_at(last), RECIPE.lr_at(1 + last)]
    assert learner.trace.curves["lr"] == pytest.approx(expected)


def test_stopping_checkpoints_and_resuming_gives_the_same_bits(tmp_path):
    whole = Bench()
    undisturbed = whole.learner(Plain)
    whole.train(undisturbed, folder=tmp_path / "a")
    halves = Bench()
    learner = halves.learner(Plain)
    calls = iter([False] * 3 + [True])
    with pytest.raises(Stopped):
        halves.train(learner, folder=tmp_path / "b", stop=lambda: next(calls))
    resumed = Bench().learner(Plain)
    resumed.restore(checkpoint.load(tmp_path / "b", resumed.run.id))
    assert resumed.position == (0, 4)
    other = Bench()
    other.train(resumed, other.learner(Raises), folder=tmp_path / "c")
    assert weights_hash(resumed.student) == weights_hash(undisturbed.student)
    assert resumed.trace.curves == undisturbed.trace.curves


def test_cost_is_charged_in_full_and_by_share(tmp_path):
    bench = Bench()
    learners = [bench.learner(Plain) for _ in range(4)]
    bench.train(*learners, folder=tmp_path)
    steps = 2 * bench.feed.steps
    for learner in learners:
        cost = learner.trace.cost
        assert cost["teacher_forwards"] == steps
        assert cost["student_epochs"] == 2
        assert cost["teacher_share_s"] == pytest.approx(cost["teacher_s"] / 4)
        assert cost["data_share_s"] == pytest.approx(cost["data_s"] / 4)
        assert cost["own_s"] > 0
