"""The checks of gradients, adapters, taps and weights, on plugins that break them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench import Phase, Strategy
from kdbench.conformance import gradients as checks
from kdbench.conformance.checks import Broken, DoesNotApply, carried_out, checks_of
from kdbench.conformance.dependence import counting, reads_head
from kdbench.conformance.toys import IMAGES, Toys
from kdbench.conformance.trainings import Subject, subject_of
from kdbench.plugins import Host
from kdbench.records import Recipe
from kdbench.testing import Given

MUSEUM = Path(__file__).parents[1] / "museum"
CHECKS = [c for c in checks_of("strategy") if c.look.__module__ == checks.__name__]

PIECES = {
    "peers_classifier": {"gradients": "student 1: classifier.weight, which no opt"},
    "unused_variance": {"gradients": "no term depends on adapters: spread"},
    "loose_variance": {
        "gradients": "a tensor (28,) of its own, which no optimiser holds",
        "adapters-kept": "`spreads` of adapters holds a Parameter",
    },
    "loose_layers": {
        "gradients": "a tensor (28, 12) of its own",
        "adapters-kept": "`layers` of adapters holds a Linear that is not registered",
    },
    "counts_steps": {
        "adapters-kept": "`steps` of adapters changed in training, from 0 to 24"
    },
    "unsaved_mean": {"adapters-kept": "the buffer mean changes in training"},
    "remembers": {"adapters-kept": "the strategy got an attribute `_before`"},
    "zipped_stages": {
        "every-tap-counts": "on toy-convnet-resnet (two stages teach three) no term "
        "changes when student 0: stage3 is noise"
    },
    "own_hint": {"every-tap-counts": "when any answer of the teacher is noise"},
    "lost_square": {"weights-scale": "'kd' is no straight line in ce_weight"},
    "rest_of_one": {"weights-scale": "the term 'ce' is scaled by 1 - kd_weight"},
}
"""What is said of each by the checks of this module, and by no others of them."""


QUICK = ("unused_variance", "loose_layers", "own_hint", "lost_square")
"""One of each check; tests/test_museum.py has all of them, too."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in PIECES
    ],
)
def test_the_museum_is_named(name):
    host = Host(files=[MUSEUM / f"{name}.py"], found=[], modules=[Toys()])
    subject = subject_of(host, name)
    said = {}
    for check in CHECKS:
        finding = carried_out(check, subject)
        if finding.failed:
            said[check.name] = finding.said
    assert set(said) == set(PIECES[name])
    for check_name, words in PIECES[name].items():
        assert words in said[check_name]


@cache
def bundled(name: str) -> Subject:
    return subject_of(Host(modules=[Toys()]), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ft", "split_transfer", "simkd", "at"])
def test_what_is_right_passes(name):
    """A phase without students, a loop, another classifier, unequal stages."""
    subject = bundled(name)
    for check in CHECKS:
        finding = carried_out(check, subject)
        assert not finding.failed, str(finding)
        if name in ("ft", "at"):
            assert finding.status == "passed", str(finding)


def stand_in(watch, **others):
    """A subject with a training that did not take place."""
    given = {"loops": False, "strategy": Strategy(), "home": IMAGES, **others}
    return SimpleNamespace(watched=lambda: watch, **given)


def trained(looks, held, moved, *, students=1, phases=None, another=False):
    """What is known of a training, to `gradients`."""

    class Phased(Strategy):
        deploys_another = another

        def phases(self) -> tuple[Phase, ...]:
            return phases or super().phases()

    watch = SimpleNamespace(
        failure=None,
        looks=[
            SimpleNamespace(epoch=epoch, phase=name, reached=frozenset(reached))
            for epoch, name, reached in looks
        ],
        held=set(held),
        moved=set(moved),
        learner=SimpleNamespace(
            modules=nn.ModuleList(nn.Linear(1, 1) for _ in range(students)),
            recipe=Recipe(epochs=1),
        ),
    )
    return stand_in(watch, strategy=Phased())


W, B, V = "student 0: weight", "student 0: bias", "student 1: weight"


def test_gradients_passes_where_all_is_used():
    checks.gradients(trained([(0, "", {W, B})], {W, B}, {W}))


def test_every_student_has_to_learn():
    with pytest.raises(Broken, match="other than zero arrives at student 1"):
        checks.gradients(trained([(0, "", {W})], {W, V}, {W}, students=2))


def test_a_parameter_without_use_is_named_unless_another_network_is_deployed():
    given = ([(0, "", {W})], {W, B}, {W})
    with pytest.raises(Broken, match="no term depends on student 0: bias"):
        checks.gradients(trained(*given))
    checks.gradients(trained(*given, another=True))


def test_phases_may_have_one_name():
    phases = (Phase(epochs=1, students=(1,)), Phase(students=(0,)))
    both = [(-1, "", {V}), (0, "", {W})]
    checks.gradients(trained(both, {W, V}, {W, V}, students=2, phases=phases))
    swapped = [(-1, "", {W}), (0, "", {W})]
    with pytest.raises(Broken, match="student 0: weight, which no optimiser holds"):
        checks.gradients(trained(swapped, {W, V}, {W, V}, students=2, phases=phases))


def test_the_gradients_of_a_loop():
    student = nn.Linear(1, 1)
    watch = SimpleNamespace(
        failure=None,
        held={W},
        moved={W},
        learner=SimpleNamespace(modules=nn.ModuleList([student])),
    )
    subject = stand_in(watch, loops=True)
    checks.gradients(subject)
    student.bias.grad = torch.ones(1)
    with pytest.raises(Broken, match="student 0: bias, which no optimiser holds"):
        checks.gradients(subject)
    student.bias.grad = None
    watch.moved = set()
    with pytest.raises(Broken, match="student 0: weight is in an optimiser and never"):
        checks.gradients(subject)
    watch.held = set()
    with pytest.raises(DoesNotApply, match="it asks for no optimiser"):
        checks.gradients(subject)


class Plain(nn.Module):
    """Adapters with a bit of everything that is allowed."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 3), nn.LSTM(2, 3)])
        self.first = [self.layers[0]]
        self.names = ["a", ("b", 1)]
        self.register_buffer("table", torch.arange(3.0), persistent=False)
        self.worked_out = self.layers[0].weight * 2


def kept(change, strategy=None):
    """`adapters_kept` of adapters that training changed so."""
    before = Plain()
    after = Plain()
    after.load_state_dict(before.state_dict())
    learner = SimpleNamespace(
        strategy=strategy or Strategy(),
        adapters=after,
        optimiser=torch.optim.SGD([p for p in after.parameters() if p.requires_grad]),
    )
    change(after)
    look = SimpleNamespace(batch=SimpleNamespace(adapters=before))
    watch = SimpleNamespace(failure=None, looks=[look], learner=learner)
    checks.adapters_kept(stand_in(watch))


def test_registered_and_constant_things_are_kept():
    kept(lambda adapters: adapters.layers[0].weight.data.zero_())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.add_module("late", nn.Linear(1, 1)), "late.weight came or went"),
        (lambda a: setattr(a, "scale", torch.ones(2)), "`scale` of adapters holds a T"),
        (
            lambda a: a.names.append({"c": nn.ReLU()}),
            "`names` of adapters holds a ReLU",
        ),
        (lambda a: a.names.append(2), "`names` of adapters changed in training"),
        (lambda a: setattr(a.layers[0], "count", 0), "adapters.layers.0 got an attri"),
        (lambda a: a.table.add_(1), "the buffer table changes in training"),
        (
            lambda a: setattr(a.layers[0], "bias", nn.Parameter(torch.ones(3))),
            "layers.0.bias wants a gradient and is in no optimiser",
        ),
    ],
)
def test_what_is_not_kept(change, said):
    with pytest.raises(Broken, match=said):
        kept(change)


def test_a_strategy_keeps_nothing():
    strategy = Strategy()
    object.__setattr__(strategy, "_steps", 3)
    with pytest.raises(Broken, match="the strategy got an attribute `_steps`"):
        kept(lambda _: None, strategy)


def test_a_strategy_may_work_something_out_once():
    class Cached(Strategy):
        @cached_property
        def table(self) -> int:
            return 3

    strategy = Cached()
    assert strategy.table == 3
    kept(lambda _: None, strategy)


class Tapping(Strategy):
    taps: Sequence[str] = ("stage1", "pooled")

    def loss(self, batch):
        s, t = batch.student, batch.teacher
        return {"a": (s.features["stage1"].mean() - t.features["stage1"].mean()) ** 2}


class Heading(Tapping):
    def loss(self, batch):
        s, t = batch.student, batch.teacher
        return {"a": F.mse_loss(t.classifier(s.features["stage1"]), t.logits)}


@pytest.fixture
def watch():
    shapes = {"stage1": (5,), "pooled": (5,)}
    batch = Given(torch.Generator().manual_seed(0)).batch(
        student_shapes=shapes, teacher_shapes=shapes
    )
    for answer in (*batch.students, *batch.teachers):
        object.__setattr__(answer, "classifier", nn.Linear(5, 5))
    look = SimpleNamespace(phase="", batch=batch)
    return SimpleNamespace(failure=None, looks=[look])


def test_a_tap_that_nothing_reads_is_named(watch):
    with pytest.raises(Broken, match="no term changes when 'pooled' is noise"):
        checks.every_tap_counts(stand_in(watch, strategy=Tapping()))


def test_pooled_may_be_tapped_for_the_classifier(watch):
    assert counting(Heading(), watch) == {"student 0: stage1", "teacher 0: logits"}
    assert reads_head(Heading(), watch)
    assert not reads_head(Tapping(), watch)
    checks.every_tap_counts(stand_in(watch, strategy=Heading()))


def test_taps_are_not_looked_at_where_there_are_none(watch):
    for other in ({"strategy": Strategy()}, {"strategy": Tapping(), "loops": True}):
        with pytest.raises(DoesNotApply, match="it taps no features"):
            checks.every_tap_counts(stand_in(watch, **other))


def test_terms_that_are_drawn_anew_are_not_judged(watch):
    class Drawn(Tapping):
        numbers = iter(range(100))

        def loss(self, batch):
            return {"a": batch.student.logits.mean() + next(self.numbers)}

    with pytest.raises(DoesNotApply, match="see `own-randomness`"):
        checks.every_tap_counts(stand_in(watch, strategy=Drawn()))


def test_a_failed_training_is_named_elsewhere():
    failed = SimpleNamespace(failure="RuntimeError: no")
    for check in CHECKS:
        assert carried_out(check, stand_in(failed)).status == "does not apply"
