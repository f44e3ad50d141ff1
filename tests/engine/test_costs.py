"""What a run costs: parts that add up to the wall-clock, and energy by shares."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.api import Data, Dataset, Phase, Split
from kdbench.engine import Stopped, checkpoint, learner
from kdbench.engine.feed import Feed
from kdbench.engine.learner import Learner
from kdbench.engine.lockstep import train
from kdbench.engine.saver import Saver
from kdbench.engine.teacher import TeacherStage
from kdbench.models.convnet import convnet
from kdbench.models.taps import TappedModel
from kdbench.plugins import Host
from kdbench.records import Recipe
from kdbench.tasks import Task

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from costing import CPU, Bench, Plain

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
        time.sleep(SLEEP_S)
        return x


class Adapted(Plain):
    """Goes through its adapters twice a step, and deploys them, too."""

    def adapters(self, student, teacher):
        return nn.ModuleDict({"slow": Slow()})

    def loss(self, batch):
        time.sleep(SLEEP_S)
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


@pytest.mark.parametrize("company", [0, 3])
def test_parts_add_up_to_the_loop(host, tmp_path, company):
    """Alone, and over a group: within five percent, without the loop's own rest.

    Whoever else uses the machine can only make it more: the best of some counts.
    """
    names = ["fitnet", "at", "kd"][:company]
    for _ in range(5):
        bench = Bench(convnet(32), convnet(16))
        learners = [bench.learner(host.strategy(n).configured({})) for n in names]
        learners.append(bench.learner())
        bench.train(*learners, folder=tmp_path, every_s=0.1)
        costs = [x.trace.bill() for x in learners]
        loop = costs[0]["loop_s"]
        assert all(cost["company"] == company for cost in costs)
        assert all(cost["loop_s"] == loop for cost in costs)
        assert all(cost["checkpoint_s"] > 0 for cost in costs)
        # with the engine's own everything is there, and nothing twice
        known = [x.trace.cost for x in learners]
        shared = sum(c["data_share_s"] + c["teacher_share_s"] for c in known)
        rest = sum(c["loop_rest_s"] for c in known)
        beside = sum(c["evaluation_s"] + c["checkpoint_s"] for c in costs)
        engine = sum(c["engine_s"] for c in costs)
        whole = sum(map(split, costs)) + engine + shared + beside
        assert whole == pytest.approx(loop, rel=0.01)
        assert sum(map(parts, costs)) == pytest.approx(loop, rel=0.01)
        unnamed = 1 - (sum(map(parts, costs)) - rest) / loop
        outside = 1 - loop / bench.wall
        assert min(unnamed, outside) > -1e-6
        if max(unnamed, engine / loop, outside) < 0.05:
            break
    else:
        pytest.fail(f"{unnamed:.1%} unnamed, {engine / loop:.1%} the engine's own")


def test_adapters_are_timed_apart_and_only_within_the_loss(tmp_path):
    bench = Bench()
    learner = bench.learner(Adapted)
    bench.train(learner, folder=tmp_path)
    steps = 2 * bench.feed.steps
    cost = learner.trace.bill()
    twice = 2 * steps * SLEEP_S
    assert twice < cost["adapters_s"] < 2 * twice  # once for each call, not each part
    assert steps * SLEEP_S < cost["loss_s"] < twice
    assert cost["own_s"] >= split(cost)
    before = cost["adapters_s"]
    assert not any(m._forward_hooks for m in learner.adapters.modules())
    learner.student(bench.feed.sample(2))
    assert learner.trace.bill()["adapters_s"] == before


def test_evaluation_is_apart_from_training(tmp_path, monkeypatch):
    slow = learner.predict

    def predict(*given):
        time.sleep(0.1)
        return slow(*given)

    monkeypatch.setattr(learner, "predict", predict)
    bench = Bench()
    one = bench.learner(Early)
    bench.train(one, folder=tmp_path)
    cost = one.trace.bill()
    assert 0.2 < cost["evaluation_s"] < 0.3  # twice: not after the first phase
    assert parts(cost) == pytest.approx(cost["loop_s"], rel=0.1)
    assert one.trace.times[""]["evaluation"] == pytest.approx(cost["evaluation_s"])


def test_costs_of_both_sides_of_a_stop_add_up(tmp_path):
    bench = Bench()
    one = bench.learner()
    calls = itertools.chain([False] * 9, itertools.repeat(True))
    with pytest.raises(Stopped):
        bench.train(one, folder=tmp_path, stop=lambda: next(calls))
    first = bench.wall
    rest = Bench()
    resumed = rest.learner()
    resumed.restore(checkpoint.load(tmp_path, resumed.run.id))
    rest.train(resumed, folder=tmp_path)
    cost = resumed.trace.bill()
    writing = first - one.trace.bill()["loop_s"]  # the last checkpoint of the first
    assert writing == pytest.approx(one.trace.cost["checkpoint_s"], abs=0.01)
    assert cost["loop_s"] == pytest.approx(first - writing + rest.wall, rel=0.02)
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


@pytest.mark.slow
def test_the_engine_takes_less_than_a_twentieth_of_a_resnet20(host, tmp_path):
    """Synthetic images, batch 64, kd of a resnet32: all of the wall-clock counts."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (64 * 12, 3, 32, 32), dtype=torch.uint8)
    targets = torch.randint(0, 10, (len(images),))
    whole = Split(inputs=images, targets=targets)
    few = Split(inputs=images[:64], targets=targets[:64])
    data = Data(train=whole, test=few, mean=(0.5,) * 3, std=(0.3,) * 3)
    dataset = Dataset(
        name="noise",
        summary="images of noise",
        task=Task(outputs=10),
        input_shape=(3, 32, 32),
        load=lambda *_: data,
        source="made up",
    )
    recipe = Recipe(epochs=2, batch_size=64, lr=1e-3, schedule="constant")
    spec, small = host.model("resnet32"), host.model("resnet20")
    feed = Feed(data, dataset.task, recipe, 0, CPU)
    known = [(spec, dataset.build(spec).eval())]
    run = (
        Bench()
        .learner()
        .run.model_copy(update={"students": ("resnet20",), "recipe": recipe})
    )
    strategy = host.strategy("kd").configured({})
    one = Learner(run, strategy, [small], known, [0], feed, dataset)
    stage = TeacherStage([TappedModel(*known[0], [])], feed)
    nothing = (lambda: False, lambda *_: None, lambda _: None)
    train([one], stage, feed, Saver(tmp_path, 1e9), *nothing)
    cost = one.trace.bill()
    assert cost["engine_s"] < 0.05 * cost["loop_s"]
    assert parts(cost) == pytest.approx(cost["loop_s"], rel=0.05)
    assert cost["peak_memory_bytes"] > 64 * 2**20 / 4
