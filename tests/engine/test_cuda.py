"""The engine on a GPU: run by whoever has one (`pytest -m cuda`)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from time import perf_counter

import pytest
import torch
import torch.nn.functional as F

from kdbench import suites
from kdbench.api import Strategy
from kdbench.config import changed, read_suite
from kdbench.data.digits import DIGITS, load
from kdbench.engine.device import settle
from kdbench.engine.feed import Feed
from kdbench.engine.graphs import recorder_for
from kdbench.engine.learner import Learner
from kdbench.engine.lesson import Lesson
from kdbench.engine.teacher import FrozenTeacher, TeacherStage, weights_hash
from kdbench.execute import make_jobs
from kdbench.models.convnet import convnet
from kdbench.perform import perform
from kdbench.plan import make_plan
from kdbench.records import Recipe, Run

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

GPU = torch.device("cuda")
RECIPE = Recipe(epochs=3, batch_size=96, lr=0.02, crop_padding=1, flip=True)
SAME = RECIPE.model_copy(update={"deterministic": True})
FOUR = ("kd", "at", "fitnet", "sp")


@pytest.fixture(autouse=True)
def _settled():
    """Deterministic, as most tests ask for equal bits; as before in the end."""
    settle(GPU, 1, deterministic=True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    torch.cuda.set_sync_debug_mode("default")


class Bench:
    """A teacher, a feed and learners around them, on the GPU."""

    def __init__(self, host, recipe=SAME, graphs=True):
        self.host, self.recipe = host, recipe
        self.feed = Feed(load(None, False), DIGITS.task, recipe, 0, GPU)
        self.spec, self.small = convnet(32), convnet(16)
        torch.manual_seed(0)
        self.teacher = DIGITS.build(self.spec).to(GPU)
        with torch.no_grad():  # running statistics that are not the initial ones
            self.teacher(self.feed.at(0, 0).inputs)
        self.recorder = recorder_for(GPU) if graphs else None
        self.stage = None

    def learner(self, strategy):
        if isinstance(strategy, str):
            strategy = self.host.strategy(strategy).configured({})
        run = Run(
            dataset="digits",
            pair="p",
            teachers=("convnet_32",),
            students=("convnet_16",),
            strategy=strategy.name,
            label=strategy.name,
            params={},
            seed=0,
            recipe=self.recipe,
            teacher_runs=("t",),
            code={},
        )
        sides = [(self.spec, self.teacher)]
        return Learner(
            run, strategy, [self.small], sides, [0], self.feed, DIGITS, self.recorder
        )

    def train(self, *learners, until=None):
        """All side by side, up to (epoch, step) or to the end."""
        if self.stage is None:
            taps = [tap for learner in learners for tap in learner.strategy.taps]
            teacher = FrozenTeacher(self.spec, self.teacher, taps, self.feed)
            self.stage = TeacherStage([teacher], self.feed)
        epoch, first = learners[0].position
        while epoch < self.recipe.epochs:
            for step in range(first, self.feed.steps):
                if (epoch, step) == until:
                    return learners
                lesson = Lesson(self.feed, self.stage, epoch, step)
                for learner in learners:
                    if learner.failure is None:
                        learner.step(lesson)
                lesson.charge()
            for learner in learners:
                if learner.failure is None:
                    learner.end_epoch()
            epoch, first = epoch + 1, 0
        return learners


def assert_same(one, other):
    assert weights_hash(one.modules) == weights_hash(other.modules)
    assert one.trace.curves == other.trace.curves


class Dropping(Strategy):
    """Draws on the GPU's global stream: never graphed."""

    name = "dropping"

    def loss(self, batch):
        logits = F.dropout(batch.student.logits, 0.3)
        return {"ce": F.cross_entropy(logits, batch.targets)}


class Waits(Strategy):
    """Asks the GPU for a number in every step."""

    name = "waits"

    def loss(self, batch):
        ce = F.cross_entropy(batch.student.logits, batch.targets)
        return {"ce": ce * (2.0 if ce.item() > 0 else 1.0)}


class RefusesCapture(Strategy):
    """What no step before the capture gives away."""

    name = "refuses"

    def loss(self, batch):
        ce = F.cross_entropy(batch.student.logits, batch.targets)
        if torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize()
        return {"ce": ce}


class Breaks(Strategy):
    name = "breaks"

    def loss(self, batch):
        if torch.cuda.is_current_stream_capturing():
            raise ValueError("in the capture")
        return {"ce": F.cross_entropy(batch.student.logits, batch.targets)}


def test_graphed_steps_give_the_bits_of_plain_ones(host):
    for name in FOUR:
        graphed, plain = Bench(host), Bench(host, graphs=False)
        [one] = graphed.train(graphed.learner(name))
        [other] = plain.train(plain.learner(name))
        assert (one.failure, one._graphed.obstacle) == (None, "")
        assert one._graphed.is_captured
        assert_same(one, other)


def test_lockstep_gives_the_bits_of_training_alone(host):
    """Graphs share their memory, and the other learners' kinds are mixed."""
    bench = Bench(host)
    kinds = [*FOUR, Dropping(), "dkd", "kd"]
    together = bench.train(*(bench.learner(kind) for kind in kinds))
    for learner, kind in zip(together, kinds, strict=True):
        single = Bench(host)
        [alone] = single.train(single.learner(kind))
        assert learner.failure is None
        assert_same(learner, alone)


def test_what_cannot_be_graphed_is_plain_and_harms_nobody(host):
    """Also a capture that breaks off: the random streams go on as they were."""
    bench = Bench(host)
    kinds = [Waits(), RefusesCapture(), Breaks(), Dropping(), "kd"]
    learners = bench.train(*(bench.learner(kind) for kind in kinds))
    assert [x.failure for x in learners] == [None] * 5
    waits, refuses, breaks, dropping, kd = (x._graphed.obstacle for x in learners)
    assert "waits" in waits
    assert "capture failed" in refuses
    assert "in the capture" in breaks
    assert "random" in dropping
    assert kd == ""
    for learner, kind in zip(learners, kinds, strict=True):
        plain = Bench(host, graphs=False)
        [alone] = plain.train(plain.learner(kind))
        assert_same(learner, alone)


def test_a_resumed_training_gives_the_same_bits(host):
    for until in ((0, 2), (1, 7)):
        whole, half, rest = Bench(host), Bench(host), Bench(host)
        [undisturbed] = whole.train(whole.learner("fitnet"))
        [stopped] = half.train(half.learner("fitnet"), until=until)
        resumed = rest.learner("fitnet")
        resumed.restore(stopped.state())
        rest.train(resumed)
        assert_same(resumed, undisturbed)


@pytest.mark.parametrize("graphs", [True, False])
def test_nobody_waits_for_the_gpu_within_an_epoch(host, graphs):
    """The first epoch may: it captures, and libraries make themselves ready."""
    bench = Bench(host, graphs=graphs)
    learners = [bench.learner(name) for name in FOUR]
    bench.train(*learners, until=(1, 0))
    torch.cuda.set_sync_debug_mode("error")
    bench.train(*learners, until=(1, bench.feed.steps - 1))
    assert [learner.failure for learner in learners] == [None] * len(FOUR)


def test_views_are_made_without_waiting():
    bench = Bench(None)
    bench.feed.at(0, 0)
    torch.cuda.set_sync_debug_mode("error")
    for epoch in (0, 1):
        bench.feed.add_views(bench.feed.at(epoch, 1), ("mixup", "cutmix", "same_class"))


def test_times_add_up_to_what_the_clock_shows(host):
    bench = Bench(host)
    learners = [bench.learner(name) for name in FOUR]
    bench.train(*learners, until=(1, 0))
    for learner in learners:
        learner.trace.settle()
    costs = [dict(learner.trace.cost) for learner in learners]
    torch.cuda.synchronize()
    started = perf_counter()
    bench.train(*learners, until=(1, bench.feed.steps - 1))
    torch.cuda.synchronize()
    wall = perf_counter() - started
    spent = 0.0
    for learner, before in zip(learners, costs, strict=True):
        learner.trace.settle()
        cost = learner.trace.cost
        for part in ("own_s", "data_share_s", "teacher_share_s"):
            spent += cost[part] - before[part]
        assert cost["graph_s"] > before["graph_s"]
    assert 0.7 * wall < spent < 1.05 * wall


def test_float32_is_not_tf32():
    """A product of 2048 terms: TF32 is off by a thousandth, float32 by a millionth."""
    one, other = torch.randn(2, 2048, 2048, device=GPU).unbind()
    exact = one.double() @ other.double()
    assert (one @ other - exact).abs().max() < 1e-3 * exact.abs().max() / 10
    images = torch.randn(16, 64, 16, 16, device=GPU)
    kernels = torch.randn(64, 64, 3, 3, device=GPU)
    exact = F.conv2d(images.double(), kernels.double())
    assert (F.conv2d(images, kernels) - exact).abs().max() < 1e-4 * exact.abs().max()


@dataclasses.dataclass(frozen=True)
class Ran:
    records: dict
    notes: list
    peak: int


def ran(host, helpers, folder, fraction=1.0):
    """Four strategies of the digits suite on the GPU, in a part of its memory."""
    path = Path(suites.__file__).parent / "digits.toml"
    changes = {"epochs": 2, "seeds": 1, "pairs": ["digits-conv"]}
    strategies = ("scratch", *FOUR)
    suite = changed(read_suite(path), {**changes, "strategies": strategies})
    notes = []
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_per_process_memory_fraction(fraction)
    try:
        plan = make_plan(suite, host, {})
        jobs = make_jobs(plan, host, {"digits": 1347}, folder, None, "cuda", 60.0)
        for job in jobs:
            perform(job, host, notes.append, lambda: False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    told = [event[1] for event in notes if event[0] == "note"]
    records = helpers["by_cell"](folder)
    return Ran(records, told, torch.cuda.max_memory_reserved())


def test_a_group_that_does_not_fit_goes_on_in_parts(host, helpers, tmp_path):
    """In less memory than it takes together, all runs finish with the same top-1."""
    free = ran(host, helpers, tmp_path / "free")
    total = torch.cuda.get_device_properties(GPU).total_memory
    tight = ran(host, helpers, tmp_path / "tight", 0.6 * free.peak / total)
    assert any("out of memory" in note for note in tight.notes) or (
        tight.peak < 0.7 * free.peak
    )
    for cell, record in tight.records.items():
        assert record.status == "finished", (cell, record.reason)
        expected = free.records[cell].measures["top1"]
        assert record.measures["top1"] == pytest.approx(expected, abs=10)
