"""Phases: who learns, who answers, by which rate, for how long, and from where on."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.api import Phase, Strategy
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
RECIPE = Recipe(epochs=2, batch_size=256, lr=0.02, schedule="cosine", drop_last=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plain(Strategy):
    """Cross-entropy of every student that learns; remembers what it was shown."""

    name = "plain"
    taps = ("pooled",)
    stages = (Phase(),)
    own_adapters = False

    def phases(self):
        return self.stages

    def adapters(self, student, teacher):
        wide = teacher.shapes["pooled"][0]
        return nn.Sequential(nn.Linear(wide, 10)) if self.own_adapters else None

    def loss(self, batch):
        type(self).seen.append((batch.phase, batch.epoch, batch.progress, batch))
        if not batch.students:
            feature = batch.teacher.features["pooled"]
            logits = batch.adapters(feature)
            return {"head": F.cross_entropy(logits, batch.targets)}
        ce = [F.cross_entropy(s.logits, batch.targets) for s in batch.students]
        return {"ce": torch.stack(ce).sum()}


def plain(*phases: Phase, **members) -> type[Plain]:
    return type("Made", (Plain,), {"stages": phases, "seen": [], **members})


class Bench:
    def __init__(self, recipe: Recipe = RECIPE) -> None:
        self.recipe = recipe
        self.feed = Feed(load(None, False), DIGITS.task, recipe, 0, CPU)
        self.spec, self.small = convnet(8), convnet(4)
        torch.manual_seed(0)
        self.teacher = DIGITS.build(self.spec)

    def learner(self, kind: type[Plain]) -> Learner:
        run = Run(
            dataset="digits",
            pair="p",
            teachers=("convnet_8",),
            students=("convnet_4",) * kind.students,
            strategy="plain",
            label="plain",
            params={},
            seed=0,
            recipe=self.recipe,
            teacher_runs=("t",),
            code={},
        )
        specs = [self.small] * kind.students
        teachers = [(self.spec, self.teacher)]
        return Learner(run, kind(), specs, teachers, [0], self.feed, DIGITS)

    def train(self, learner, folder, stop=lambda: False, tell=lambda *_: None):
        stage = TeacherStage([TappedModel(self.spec, self.teacher, ["pooled"])])
        train([learner], stage, self.feed, Saver(folder, 1e9), stop, tell, print)
        return learner


@pytest.fixture
def trained(tmp_path):
    def run(kind, recipe=RECIPE, **options):
        bench = Bench(recipe)
        learner = bench.train(bench.learner(kind), tmp_path, **options)
        assert learner.failure is None
        return learner

    return run


def test_training_adapters_first_leaves_the_student_as_it_was(trained):
    first = Phase(name="head", epochs=3, students=())
    kind = plain(first, Phase(), own_adapters=True)
    before = weights_hash(Bench().learner(kind).student)
    bits = []
    learner = trained(kind, tell=lambda x, *_: bits.append(weights_hash(x.student)))
    assert bits[:3] == [before] * 3
    assert bits[3] != before
    scratch = trained(plain(Phase(), own_adapters=True))
    assert bits[-1] == weights_hash(scratch.student)
    assert weights_hash(learner.adapters) != weights_hash(scratch.adapters)
    for name in ("top1", "lr", "loss/ce"):
        assert learner.trace.curves[name] == scratch.trace.curves[name]
    losses = learner.trace.curves["before/head/head"]
    assert losses[-1] < losses[0]


def test_generations_learn_from_frozen_peers_and_number_0_is_deployed(trained):
    last = Phase(students=(0,), teachers=(), peers=(1,))
    kind = plain(Phase(name="one", students=(1,)), last, students=2)
    seen = {}

    def tell(learner, epoch, _):
        seen[epoch] = [weights_hash(m) for m in learner.modules]
        modes = [m.training for m in learner.modules]
        assert modes == [epoch >= 0, epoch < 0]  # told at 0, the last one has begun

    learner = trained(kind, tell=tell)
    start = [weights_hash(m) for m in Bench().learner(kind).modules]
    assert [seen[e][0] for e in (-1, 0)] == [start[0]] * 2
    assert len({start[1], seen[-1][1], seen[0][1]}) == 3
    assert seen[0][1] == seen[1][1] == seen[2][1]  # weights and buffers
    assert learner.student is learner.modules[0]
    scratch = trained(plain(Phase()))
    assert weights_hash(learner.student) == weights_hash(scratch.student)
    *_, (_, _, _, batch) = kind.seen
    assert len(batch.students) == len(batch.teachers) == 1
    assert not batch.teacher.logits.requires_grad
    with torch.no_grad():
        expected = learner.modules[1].eval()(batch.inputs)
    assert torch.equal(batch.teacher.logits, expected)


def test_every_phase_has_a_fresh_optimiser_of_who_learns(tmp_path):
    bench = Bench()
    kind = plain(Phase(name="one", students=(1,)), Phase(students=(0,)), students=2)
    learner = bench.learner(kind)
    found = []

    def tell(learner, epoch, _):
        ids = [id(p) for p in learner.optimiser.param_groups[0]["params"]]
        found.append((epoch, id(learner.optimiser), len(learner.optimiser.state), ids))

    bench.train(learner, tmp_path, tell=tell)
    own = [[id(p) for p in m.parameters()] for m in learner.modules]
    assert [ids for *_, ids in found] == [own[1], own[0], own[0], own[0]]
    assert [size for _, _, size, _ in found] == [len(own[1]), 0, *[len(own[0])] * 2]


def test_the_rate_is_stretched_over_a_phase_or_constant(tmp_path):
    bench = Bench()
    phases = Phase(name="a", epochs=3), Phase(name="b", epochs=1, constant_lr=True)
    learner = bench.learner(plain(*phases, Phase()))
    rates = []

    def stop():
        rates.append(learner.optimiser.param_groups[0]["lr"])
        return False

    bench.train(learner, tmp_path, stop=stop)
    n = bench.feed.steps
    expected = [RECIPE.lr_at(k / n * 2 / 3) for k in range(3 * n)]
    expected += [RECIPE.lr] * n + [RECIPE.lr_at(k / n) for k in range(2 * n)]
    assert rates == pytest.approx(expected)


def test_a_constant_rate_of_one_cycle_is_the_recipes(trained):
    recipe = RECIPE.model_copy(update={"schedule": "one-cycle"})
    kind = plain(Phase(name="a", epochs=1, constant_lr=True), Phase())
    weights = []

    def tell(learner, *_):
        weights.append(learner.student.classifier.weight.detach().clone())

    trained(kind, recipe, tell=tell)
    start = Bench(recipe).learner(kind).student.classifier.weight
    assert not torch.equal(weights[0], start)


def test_progress_and_epoch_count_within_the_phase(trained):
    kind = plain(Phase(name="a", epochs=1), Phase())
    trained(kind)
    n = Bench().feed.steps
    assert [phase for phase, *_ in kind.seen] == ["a"] * n + [""] * 2 * n
    epochs = [k / n for k in range(n)] + [k / n for k in range(2 * n)]
    assert [e for _, e, *_ in kind.seen] == pytest.approx(epochs)
    progress = [e / 1 for e in epochs[:n]] + [e / 2 for e in epochs[n:]]
    assert [p for *_, p, _ in kind.seen] == pytest.approx(progress)


def test_costs_and_curves_of_phases(trained):
    early = Phase(name="one", epochs=3, students=(1,), teachers=())
    last = Phase(students=(0,), teachers=(0,), peers=(1,))
    learner = trained(plain(early, last, students=2))
    steps = Bench().feed.steps
    cost = learner.trace.cost
    assert cost["student_epochs"] == 3 + 2
    assert cost["epochs_before"] == 3
    assert cost["teacher_forwards"] == 2 * steps * 2  # the teacher and the peer
    lengths = {name: len(curve) for name, curve in learner.trace.curves.items()}
    assert lengths == {"before/one/ce": 3, "loss/ce": 2, "top1": 2, "lr": 2}


@pytest.mark.parametrize("after", [2, 7, 10, 15])
def test_stopping_in_any_phase_and_resuming_gives_the_same_bits(tmp_path, after):
    """Five steps an epoch: within a phase, and at the ends of one."""
    first = Phase(name="head", epochs=1, students=())
    second = Phase(name="one", epochs=1, students=(1,))
    last = Phase(students=(0,), peers=(1,))
    kind = plain(first, second, last, students=2, own_adapters=True)
    whole, halves = Bench(), Bench()
    undisturbed = whole.train(whole.learner(kind), tmp_path / "a")
    calls = iter([False] * (after - 1) + [True])
    with pytest.raises(Stopped):
        halves.train(halves.learner(kind), tmp_path / "b", stop=lambda: next(calls))
    again = Bench()
    resumed = again.learner(kind)
    resumed.restore(checkpoint.load(tmp_path / "b", resumed.run.id))
    assert resumed.position == (-2 + (after - 1) // 5, 1 + (after - 1) % 5)
    again.train(resumed, tmp_path / "c")
    assert weights_hash(resumed.modules) == weights_hash(undisturbed.modules)
    assert weights_hash(resumed.adapters) == weights_hash(undisturbed.adapters)
    assert resumed.trace.curves == undisturbed.trace.curves
    counts = ("student_epochs", "teacher_forwards", "epochs_before")
    for name in counts:
        assert resumed.trace.cost[name] == undisturbed.trace.cost[name]


def test_who_learns_alone_has_its_own_models_rate(tmp_path):
    """An assistant of another kind, say: the suite's rate for it, not the student's."""
    rates = {"middle": 7 * RECIPE.lr}
    bench = Bench(RECIPE.model_copy(update={"lr_by_model": rates}))
    phases = Phase(name="a", epochs=1, students=(1,)), Phase(students=(0,))
    learner = bench.learner(plain(*phases, students=2))
    learner.run = learner.run.model_copy(update={"students": ("convnet_4", "middle")})
    learner._enter_phase()
    assert learner.optimiser.param_groups[0]["lr"] == 7 * RECIPE.lr
    learner.position = (0, 0)
    learner._enter_phase()
    assert learner.optimiser.param_groups[0]["lr"] == RECIPE.lr


def test_a_side_answers_only_the_views_it_is_to(trained):
    """A student of the strong view alone: one pass, and the teacher's of the other."""
    seen = {}

    def loss(self, batch):
        strong = batch.views["strong"]
        seen.update(own=batch.students, asked=strong.teachers)
        return {"x": strong.students[0].logits.sum() + 0 * batch.teacher.logits.sum()}

    sides = {"student_views": ("strong",), "teacher_views": ("",)}
    kind = plain(Phase(), loss=loss, views=("strong",), **sides)
    learner = trained(kind)
    assert seen == {"own": (), "asked": ()}
    assert learner.trace.cost["student_epochs"] == RECIPE.epochs
    assert learner.trace.cost["teacher_forwards"] == RECIPE.epochs * Bench().feed.steps
