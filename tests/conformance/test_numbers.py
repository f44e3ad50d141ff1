"""The checks of few items, few classes, large numbers and other pairs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdbench import Strategy
from kdbench.conformance import numbers as checks
from kdbench.conformance.checks import Broken, DoesNotApply, carried_out, checks_of
from kdbench.conformance.toys import IMAGES, ONE_MODEL, Toys
from kdbench.conformance.trainings import subject_of
from kdbench.plugins import Host
from kdbench.testing import Given

MUSEUM = Path(__file__).parents[1] / "museum"
CHECKS = {
    c.name: c for c in checks_of("strategy") if c.look.__module__ == checks.__name__
}

PIECES = {
    "norm_of_one": {"batch-of-one": "Expected more than 1 value per channel"},
    "spread_of_one": {"batch-of-one": "the term 'kd' is nan; the gradient of student"},
    "third_best": {"two-classes": "on toy-images-2 its training failed: RuntimeError"},
    "log_of_softmax": {"extreme-logits": "with all logits times 10000, the term 'kd'"},
    "half_precision": {
        "extreme-logits": "the term 'kd' is inf",
        "precisions": "the term 'kd' is float16 where the recipe's precision is fl",
    },
    "fixed_channels": {
        "cross-family": "on toy-mlps (dense layers: no maps) `supports`"
    },
    "raising_supports": {"cross-family": "on toy-mlps supports() raised ValueError"},
}
"""What is said of each."""

QUICK = ("norm_of_one", "third_best", "log_of_softmax", "raising_supports")


def looked_at(name):
    host = Host(files=[MUSEUM / f"{name}.py"], found=[], modules=[Toys()])
    return subject_of(host, name)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in PIECES
    ],
)
def test_the_museum_is_named(name):
    subject = looked_at(name)
    for check_name, words in PIECES[name].items():
        finding = carried_out(CHECKS[check_name], subject)
        assert finding.failed
        assert words in finding.said


@pytest.mark.slow
@pytest.mark.parametrize("name", PIECES)
def test_the_museum_is_named_by_no_other_check(name):
    subject = looked_at(name)
    failed = {c for c, check in CHECKS.items() if carried_out(check, subject).failed}
    assert failed == set(PIECES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ft", "semckd", "meta_pseudo_labels"])
def test_what_is_right_passes(name):
    subject = subject_of(Host(modules=[Toys()]), name)
    for check in CHECKS.values():
        finding = carried_out(check, subject)
        assert not finding.failed, str(finding)
        if not subject.loops:
            assert finding.status == "passed", str(finding)


def given(**shapes):
    return Given(torch.Generator().manual_seed(0)).batch(**shapes)


class Root(Strategy):
    """Finite, with a gradient that is not where student and teacher agree."""

    def loss(self, batch):
        gap = batch.student.logits - batch.teacher.logits
        return {"root": gap.square().sum(1).sqrt().mean()}


def test_a_gradient_that_is_not_finite():
    batch = given()
    checks.refuse_not_finite(Root(), batch, "here")
    alike = batch.student.logits.detach()
    object.__setattr__(batch.teachers[0], "logits", alike)
    with pytest.raises(Broken, match="here, the gradient of student 0: logits is not"):
        checks.refuse_not_finite(Root(), batch, "here")


def test_the_gradient_of_adapters_is_looked_at():
    class Adapted(Strategy):
        def loss(self, batch):
            root = batch.adapters(0 * batch.student.logits.detach()).square().sqrt()
            return {"root": root.mean() + batch.student.logits.mean()}

    adapters = nn.Linear(5, 1, bias=False)
    with pytest.raises(Broken, match="the gradient of adapters: weight is not finite"):
        checks.refuse_not_finite(Adapted(), given(adapters=adapters), "here")


def test_no_gradient_at_all_is_what_the_engine_says_it_is():
    class Constant(Strategy):
        def loss(self, batch):
            return {"constant": batch.student.logits.detach().mean()}

    with pytest.raises(
        Broken, match=r"it raised TypeError: the loss terms .* do not de"
    ):
        checks.refuse_not_finite(Constant(), given(), "here")


def stand_in(watch, **others):
    """A subject with trainings that did not take place."""
    values = {"loops": False, "strategy": Strategy(), "home": IMAGES, **others}
    return SimpleNamespace(watched=lambda *_, **__: watch, **values)


class Apart(Strategy):
    """Infinite where the two students are far apart."""

    def loss(self, batch):
        one, two = (student.logits for student in batch.students)
        return {"apart": (one - two).abs().amax().mul(0.01).exp()}


def test_all_agree_and_disagree():
    batch = given(students=2)
    same = batch.students[0].logits.detach()
    object.__setattr__(batch.students[1], "logits", same.clone())
    for name, extreme in checks._extremes(batch).items():
        one, two = (student.logits for student in extreme.students)
        assert one.abs().amax() > 1e3
        assert torch.equal(one, -two if "one side" in name else two)
        assert torch.equal(extreme.teacher.logits, one) == ("same" in name)
    watch = SimpleNamespace(failure=None, looks=[SimpleNamespace(batch=batch)])
    with pytest.raises(Broken, match="and one side's turned round, the term 'apart'"):
        checks.extreme_logits(stand_in(watch, strategy=Apart()))
    with pytest.raises(Broken, match="and everybody's the same, the gradient of stud"):
        checks.extreme_logits(stand_in(watch, strategy=Root()))


def test_checks_that_need_terms_leave_loops_alone():
    watch = SimpleNamespace(failure=None)
    with pytest.raises(DoesNotApply, match="drives its own loop"):
        checks.extreme_logits(stand_in(watch, loops=True))


def test_a_loop_is_given_a_last_batch_of_one_item():
    asked = []

    def watched(**recipe):
        asked.append(recipe)
        failure = "ValueError: one" if "batch_size" in recipe else None
        learner = SimpleNamespace(feed=SimpleNamespace(items=40))
        return SimpleNamespace(failure=failure, learner=learner)

    with pytest.raises(Broken, match="one item in the last batch: ValueError: one"):
        checks.batch_of_one(SimpleNamespace(loops=True, watched=watched))
    assert asked == [{}, {"batch_size": 39}]


def test_two_classes_may_be_refused():
    subject = stand_in(
        SimpleNamespace(failure=None),
        two_classes=lambda: IMAGES,
        refusal=lambda _: "two classes have no third",
    )
    with pytest.raises(DoesNotApply, match="it refuses two classes: two classes have"):
        checks.two_classes(subject)


def test_bfloat16_has_to_end():
    def watched(precision="float32"):
        failure = None if precision == "float32" else "RuntimeError: no"
        return SimpleNamespace(failure=failure, looks=[])

    with pytest.raises(Broken, match="with precision bfloat16 it failed: RuntimeError"):
        checks.precisions(SimpleNamespace(watched=watched))


@pytest.mark.parametrize("why", [True, False, "", "no", "not this"])
def test_a_refusal_is_a_sentence(why):
    subject = stand_in(None, toys=[IMAGES], refusal=lambda _: why)
    with pytest.raises(Broken, match=f"`supports` returned {why!r}, no sentence"):
        checks.cross_family(subject)


def test_pairs_are_trained_or_refused():
    trained = []

    def watched(toy=IMAGES, **recipe):
        trained.append(toy)
        return SimpleNamespace(failure="no" if toy == ONE_MODEL and broken else None)

    served = (IMAGES, ONE_MODEL)
    subject = SimpleNamespace(
        toys=[IMAGES],
        home=IMAGES,
        watched=watched,
        refusal=lambda toy: None if toy in served else "it has no maps at all",
    )
    broken = False
    checks.cross_family(subject)
    assert set(trained) == set(served)
    broken = True
    with pytest.raises(Broken, match=r"on toy-one-model \(teacher and student are one"):
        checks.cross_family(subject)


def test_a_failed_training_is_named_elsewhere():
    failed = SimpleNamespace(failure="RuntimeError: no")
    subject = stand_in(failed, toys=[], refusal=lambda _: None)
    for check in CHECKS.values():
        assert carried_out(check, subject).status == "does not apply"
