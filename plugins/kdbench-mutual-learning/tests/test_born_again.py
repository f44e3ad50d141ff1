"""born_again: its loss, its generations, and their ensemble."""

from dataclasses import replace

import pytest
import torch
from kdbench_mutual_learning import born_again
from kdbench_mutual_learning.born_again import BornAgain
from kdbench_mutual_learning.ensembles import MeanProbability
from torch import nn

from kdbench import Outputs, Phase, UserError
from kdbench.testing import mutated


def log_softmax(z):
    top = max(z.tolist())
    total = torch.log(sum(torch.exp(x - top) for x in z)) + top
    return [x - total for x in z]


def reference(student, teacher, targets):
    """KL to the teacher + twice the CE to the labels."""
    total = 0.0
    for s, t, y in zip(student, teacher, targets, strict=True):
        log_p, log_q = log_softmax(t), log_softmax(s)
        kl = sum(a.exp() * (a - b) for a, b in zip(log_p, log_q, strict=True))
        total = total + kl - 2 * log_q[y]
    return total / len(student)


def compare(given, assert_same, size, scale=2, strategy=BornAgain):
    batch = given.batch(items=size[0], classes=size[1])
    teacher = given.normal(*size, scale=scale).detach()

    def fast(student):
        teachers = (Outputs(teacher.to(student.dtype)),)
        own = replace(batch, students=(Outputs(student),), teachers=teachers)
        return sum(strategy(ce_weight=2).loss(own).values())

    assert_same(
        fast,
        lambda s: reference(s, teacher, batch.targets),
        given.normal(*size, scale=scale),
    )


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (5, 2), (2, 1000)], ids=str)
@pytest.mark.parametrize("scale", [2, 1e3])
def test_matches_the_definition(given, assert_same, size, scale):
    compare(given, assert_same, size, scale)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("batch.teacher.logits)}", "batch.teacher.logits, 4)}"),
        ("= self.ce_weight * label", "= self.kd_weight * label"),
        ("soft_kl(student, batch", "-soft_kl(student, batch"),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, old, new):
    wrong = mutated(born_again, old, new).BornAgain
    with pytest.raises(AssertionError):
        compare(given, assert_same, (4, 10), strategy=wrong)


def test_by_default_the_labels_are_not_read(given):
    batch = given.batch()
    terms = BornAgain().loss(replace(batch, targets=batch.targets * 0))
    assert terms == BornAgain().loss(batch)
    assert set(terms) == {"kd"}
    torch.testing.assert_close(
        BornAgain(kd_weight=3).loss(batch)["kd"], 3 * terms["kd"]
    )


def test_each_generation_teaches_the_next():
    assert BornAgain().phases() == (
        Phase(name="generation 1", students=(2,), teachers=(0,)),
        Phase(name="generation 2", students=(1,), teachers=(), peers=(2,)),
        Phase(students=(0,), teachers=(), peers=(1,)),
    )
    assert BornAgain(students=1).phases() == (Phase(students=(0,), teachers=(0,)),)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ce_weight", [0, 1])
def test_trains_the_student_of_each_phase(given, assert_trains, dtype, ce_weight):
    strategy = BornAgain(ce_weight=ce_weight)
    for phase in strategy.phases():
        assert (len(phase.students), len(phase.teachers + phase.peers)) == (1, 1)
        batch = given.batch(items=1, dtype=dtype)
        assert_trains(strategy, replace(batch, phase=phase.name))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_ensemble_is_the_mean_of_the_probabilities(dtype):
    torch.manual_seed(0)
    models = [nn.Linear(4, 3).to(dtype) for _ in range(3)]
    assert BornAgain().deployed(models, None) is models[0]
    ensemble = BornAgain(ensemble=True).deployed(models, None)
    inputs = torch.randn(5, 4).to(dtype)
    mean = sum(model(inputs).float().softmax(1) for model in models) / 3
    torch.testing.assert_close(ensemble(inputs).exp(), mean)
    with torch.no_grad():
        models[1].weight.mul_(3)  # it is of the live parts
    assert not torch.allclose(ensemble(inputs).exp(), mean)


def test_the_ensemble_of_sure_models_is_finite():
    sure = [nn.Linear(1, 2, bias=False) for _ in range(2)]
    for model, weight in zip(sure, ([[1e4], [-1e4]], [[-1e4], [1e4]]), strict=True):
        model.weight.data = torch.tensor(weight)
    logits = MeanProbability(sure)(torch.ones(1, 1))
    torch.testing.assert_close(logits, torch.tensor([[0.5, 0.5]]).log())


@pytest.mark.parametrize("bad", [{"students": 0}, {"kd_weight": -1}])
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        BornAgain.configured(bad)
