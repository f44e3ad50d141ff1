"""What a run costs: parts that add up to the wall-clock, and energy by shares."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from time import sleep

import pytest
import torch.nn.functional as F
from torch import nn

from kdbench.api import Phase
from kdbench.engine import Stopped, checkpoint, learner
from kdbench.engine.feed import Feed
from kdbench.engine.learner import Learner
from kdbench.engine.trace import PARTS
from kdbench.models.convnet import convnet
from kdbench.plugins import Host

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from costing import Bench, Plain, stopped_clock

SLEEP_S = 0.005


class Slow(nn.Module):
    """A layer that takes its time, in one of its parts."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(10, 10), Sleeps())

    def forward(self, logits):
        return self.inner(logits)


class Sleeps(nn.Module):
    def forward(self, x):
        sleep(SLEEP_S)
        return x


class Adapted(Plain):
    """Goes through its adapters twice a step, and deploys them, too."""

    def adapters(self, student, teacher):
        return nn.ModuleDict({"slow": Slow()})

    def loss(self, batch):
        sleep(SLEEP_S)
        slow = batch.adapters["slow"]
        logits = slow(slow(batch.student.logits))
        return {"ce": F.cross_entropy(logits, batch.targets)}

    def deployed(self, students, adapters):
        return nn.Sequential(students[0], adapters["slow"])


class Early(Plain):
    """A training before the training."""

    def phases(self):
        return (Phase(name="first", epochs=1), Phase())


def parts(cost) -> float:
    """What a group's loop is made of, as the records of its runs have it."""
    return cost["train_shared_s"] + cost["evaluation_s"] + cost["checkpoint_s"]


def split(cost) -> float:
    names = ("student", "adapters", "loss", "backward", "optimiser")
    return sum(cost[f"{name}_s"] for name in names)


@pytest.fixture
def ticks(monkeypatch):
    """Time passes only where a test lets it."""
    made = stopped_clock(monkeypatch)
    monkeypatch.setattr(sys.modules[__name__], "sleep", lambda _: made.let("slept", 1))
    return made


@pytest.mark.parametrize("company", [0, 3])
def test_parts_add_up_to_the_loop(host, tmp_path, ticks, monkeypatch, company):
    """Alone, and in a group: each part has what passed in it, and nothing twice."""

    def slow(place, name, *passed):
        monkeypatch.setattr(place, name, ticks.within(getattr(place, name), *passed))

    slow(learner, "predict", "evaluation", 3)
    slow(checkpoint, "save", "checkpoint", 5)
    slow(Learner, "terms", "loss", 7)
    slow(Learner, "seed", "engine", 1)
    slow(Feed, "_planned", "data", 13)
    bench = Bench(convnet(32), convnet(16))
    slow(bench.teacher, "forward", "teacher", 11)
    names = ["fitnet", "at", "kd"][:company]
    learners = [bench.learner(host.strategy(n).configured({})) for n in names]
    learners.append(bench.learner())
    for one in learners:
        student = one.modules[0]
        student.register_forward_pre_hook(
            lambda module, _: ticks.let("student", 2 * module.training)
        )
        last = list(student.parameters())[-1]
        last.register_post_accumulate_grad_hook(lambda _: ticks.let("backward", 17))
        slow(one.optimiser, "step", "optimiser", 19)
        for part in one.adapters.children() if one.adapters else ():
            part.register_forward_pre_hook(lambda *_: ticks.let("adapters", 23))

    def stop():
        ticks.let("engine", 1)
        return False

    bench.train(*learners, folder=tmp_path, every_s=800, stop=stop)
    costs = [x.trace.bill() for x in learners]
    assert set(ticks.passed) == {
        *("data", "teacher", "student", "loss", "backward", "optimiser", "engine"),
        *("evaluation", "checkpoint", *["adapters"][: len(names)]),
    }
    for cost in costs:
        assert cost["company"] == company
        assert cost["loop_s"] == bench.wall == ticks()
        assert cost["data_s"] == ticks.passed["data"]
        assert cost["teacher_s"] == ticks.passed["teacher"]
        assert cost["student_s"] == 2 * 2 * bench.feed.steps
    for part in (*PARTS, "evaluation", "checkpoint", "engine"):
        assert sum(c[f"{part}_s"] for c in costs) == pytest.approx(ticks.passed[part])
    assert sum(map(parts, costs)) == pytest.approx(ticks())


def test_adapters_are_timed_apart_and_only_within_the_loss(tmp_path, ticks):
    bench = Bench()
    learner = bench.learner(Adapted)
    bench.train(learner, folder=tmp_path)
    steps = 2 * bench.feed.steps
    cost = learner.trace.bill()
    assert cost["adapters_s"] == 2 * steps  # once for each call, not each part
    assert cost["loss_s"] == steps
    assert cost["own_s"] == split(cost)
    before = cost["adapters_s"]
    assert not any(m._forward_hooks for m in learner.adapters.modules())
    learner.student(bench.feed.sample(2))
    assert learner.trace.bill()["adapters_s"] == before


def test_evaluation_is_apart_from_training(tmp_path, ticks, monkeypatch):
    slow = ticks.within(learner.predict, "evaluation", 1)
    monkeypatch.setattr(learner, "predict", slow)
    bench = Bench()
    one = bench.learner(Early)
    bench.train(one, folder=tmp_path)
    cost = one.trace.bill()
    assert cost["evaluation_s"] == 2  # not after the first phase
    assert cost["loop_s"] == parts(cost) == ticks()
    assert one.trace.times[""]["evaluation"] == 2


def test_costs_of_both_sides_of_a_stop_add_up(tmp_path, ticks, monkeypatch):
    slow = ticks.within(checkpoint.save, "checkpoint", 5)
    monkeypatch.setattr(checkpoint, "save", slow)
    bench = Bench()
    one = bench.learner(Adapted)
    calls = itertools.chain([False] * 9, itertools.repeat(True))
    with pytest.raises(Stopped):
        bench.train(one, folder=tmp_path, stop=lambda: next(calls))
    first = bench.wall
    rest = Bench()
    resumed = rest.learner(Adapted)
    resumed.restore(checkpoint.load(tmp_path, resumed.run.id))
    rest.train(resumed, folder=tmp_path)
    cost = resumed.trace.bill()
    assert one.trace.cost["checkpoint_s"] == 5
    assert one.trace.bill()["loop_s"] == first - 5  # less its last checkpoint
    assert cost["loop_s"] == first - 5 + rest.wall
    slept = cost["loss_s"] + cost["adapters_s"] + cost["evaluation_s"]
    assert slept == ticks.passed["slept"]
    assert cost["peak_memory_bytes"] == one.trace.bill()["peak_memory_bytes"]


def test_what_an_earlier_version_did_not_take_is_unknown(tmp_path):
    bench = Bench()
    old = bench.learner(Adapted).state()
    new = ("evaluation", "checkpoint", "loop", "loop_rest", "adapters")
    for name in (*(f"{part}_s" for part in new), "energy_j", "company"):
        del old["trace"]["cost"][name]
    one = bench.learner(Adapted)
    one.restore(old)
    bench.train(one, bench.learner(), folder=tmp_path)
    cost = one.trace.bill()
    unknown = {name for name, value in cost.items() if value is None}
    assert unknown == {
        "adapters_s",
        "checkpoint_s",
        "company",
        "energy_j",
        "engine_s",
        "evaluation_s",
        "loop_s",
        "peak_memory_bytes",
    }
    assert cost["loss_s"] > 2 * 2 * bench.feed.steps * SLEEP_S  # with the adapters'
    assert cost["train_s"] > cost["loss_s"]


def test_a_failed_run_has_its_costs(tmp_path):
    class Fails(Plain):
        def loss(self, batch):
            assert batch.epoch < 1.5
            return super().loss(batch)

    bench = Bench()
    good, bad = bench.learner(), bench.learner(Fails)
    bench.train(good, bad, folder=tmp_path)
    assert bad.failure
    assert 0 < bad.trace.bill()["loop_s"] < good.trace.bill()["loop_s"]


def test_a_loop_of_its_own_has_its_wall_clock(run_digits, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN_LOOP)
    failed, records = run_digits(
        tmp_path / "out",
        plugins=Host(files=[path]),
        strategies=["own_loop"],
        pairs=["digits-conv"],
    )
    assert failed == 0
    cost = records["digits-conv/own_loop/0"].cost
    assert cost["company"] == 0
    assert cost["engine_s"] is None
    assert cost["student_s"] is None
    assert cost["peak_memory_bytes"] is None
    assert 0 < cost["evaluation_s"] < cost["loop_s"]
    assert parts(cost) == pytest.approx(cost["loop_s"], rel=0.01)
    beside = records["digits-conv/scratch/0"].cost
    assert beside["peak_memory_bytes"] > 0
    assert beside["loop_s"] > beside["own_s"] > 0


OWN_LOOP = '''
from dataclasses import dataclass
import torch.nn.functional as F
from kdbench import *

@dataclass(frozen=True, kw_only=True)
class OwnLoop(Strategy):
    """Drives its own loop."""
    name = "own_loop"
    def train(self, context):
        optimiser = context.optimiser(context.students[0].parameters())
        for epoch in context.epochs():
            for batch in context.batches():
                loss = F.cross_entropy(context.students[0](batch.inputs), batch.targets)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        return context.students[0]

@hookimpl
def kdbench_strategies():
    return [OwnLoop]
'''
