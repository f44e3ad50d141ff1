"""Controls without a teacher: a virtual teacher, and the student trained longer."""

from __future__ import annotations

import math

import pytest
import torch

from kdbench import controls
from kdbench.api import UserError
from kdbench.controls import (
    ScratchFewLabels,
    ScratchLonger,
    TeacherFreeKD,
    virtual_teacher,
)
from kdbench.testing import given as given
from kdbench.testing import mutated


def reference(logits, targets, strategy):
    """Yuan et al. 2020, equations 9 and 10, item by item, in float64."""
    items, classes = logits.shape
    ce = kd = torch.zeros((), dtype=torch.float64)
    t, right = strategy.temperature, strategy.confidence
    for z, y in zip(logits, targets.tolist(), strict=True):
        wrong = (1 - right) / (classes - 1)
        scores = [math.exp((right if c == y else wrong) / t) for c in range(classes)]
        bottom = sum(z.exp())
        ce = ce - (z[y].exp() / bottom).log()
        for c in range(classes):
            p = scores[c] / sum(scores)
            kd = kd + p * (math.log(p) - (z[c].exp() / bottom).log())
    return strategy.ce_weight * ce / items, strategy.kd_weight * kd / items


@pytest.mark.parametrize("values", [{}, {"temperature": 2.0, "confidence": 0.9}])
def test_tf_kd_is_its_equations(given, values):
    strategy = TeacherFreeKD(**values)
    batch = given.batch(classes=7, teachers=0, dtype=torch.float64, scale=3)
    terms = strategy.loss(batch)
    ce, kd = reference(batch.student.logits, batch.targets, strategy)
    for term, wanted in ((terms["ce"], ce), (terms["kd"], kd)):
        torch.testing.assert_close(term, wanted, rtol=1e-6, atol=1e-9)
        grads = [
            torch.autograd.grad(x, batch.student.logits, retain_graph=True)[0]
            for x in (term, wanted)
        ]
        torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(classes - 1)", "classes"),
        ("(confidence - rest)", "confidence"),
        ("teacher / self.temperature", "teacher"),
    ],
)
def test_a_wrong_virtual_teacher_is_noticed(given, old, new):
    wrong = mutated(controls, old, new).TeacherFreeKD(temperature=2.0)
    batch = given.batch(classes=3, teachers=0, dtype=torch.float64)
    _, kd = reference(batch.student.logits, batch.targets, wrong)
    assert abs(wrong.loss(batch)["kd"] - kd) > 1e-6


@pytest.mark.parametrize("labelled", [[True, False, True], [False] * 3], ids=str)
def test_few_labels_are_the_only_ones(given, labelled):
    batch = given.batch(items=3, teachers=0, labelled=torch.tensor(labelled))
    [ce] = ScratchFewLabels().loss(batch).values()
    (slope,) = torch.autograd.grad(ce, batch.student.logits)
    assert (slope.abs().sum(1) > 0).tolist() == labelled
    if any(labelled):
        own = batch.student.logits[[0, 2]].softmax(1)
        wanted = -own[range(2), batch.targets[[0, 2]]].log().mean()
        torch.testing.assert_close(ce, wanted)


def test_the_virtual_teacher_is_a_distribution():
    found = virtual_teacher(torch.tensor([2, 0]), 4, 0.97)
    torch.testing.assert_close(found.sum(1), torch.ones(2))
    torch.testing.assert_close(found[0], torch.tensor([0.01, 0.01, 0.97, 0.01]))


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (TeacherFreeKD, {"confidence": 1.0}, "confidence must be in"),
        (TeacherFreeKD, {"temperature": 0}, "temperature must be > 0"),
        (TeacherFreeKD, {"kd_weight": -1}, "kd_weight must be >= 0"),
        (ScratchLonger, {"factor": 0.5}, "factor must be >= 1, not 0.5"),
        (ScratchLonger, {"factor": "nan"}, "factor"),
    ],
)
def test_what_cannot_be_is_refused(kind, values, says):
    with pytest.raises(UserError, match=says):
        kind.configured(values)


@pytest.fixture(scope="module")
def longer(run_digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("longer")
    texts = ["scratch_longer[factor=1,2,2.5]", "scratch"]
    _, records = run_digits(out, pairs=["digits-conv"], strategies=texts)
    _, twice = run_digits(
        out / "4", pairs=["digits-conv"], strategies=["scratch"], epochs=4
    )
    return {r.run.label: r for r in records.values()}, twice["digits-conv/scratch/0"]


def test_scratch_longer_trains_by_a_stretched_schedule(longer):
    """The rates of a recipe of as many epochs; the first half is on epochs before."""
    records, twice = longer
    record = records["scratch_longer"]
    assert record.cost["student_epochs"] == 4
    assert record.cost["epochs_before"] == 2
    assert record.cost["teacher_forwards"] == 0
    assert set(record.curves) == {"top1", "lr", "loss/ce"}
    assert [len(curve) for curve in record.curves.values()] == [4, 4, 4]
    assert record.curves["lr"] == pytest.approx(twice.curves["lr"])
    assert records["scratch_longer[factor=2.5]"].cost["student_epochs"] == 5


def test_scratch_as_long_as_the_recipe_is_scratch(longer):
    records, _ = longer
    same = records["scratch_longer[factor=1]"]
    assert same.weights_sha256 == records["scratch"].weights_sha256
    assert same.curves == records["scratch"].curves
