"""ensemble_kd: KL to the mean of the teachers' softened distributions."""

import pytest
import torch
from kdbench_mutual_learning import ensemble_kd, ensembles
from kdbench_mutual_learning.ensemble_kd import EnsembleKD, ensemble_kl

from kdbench import UserError
from kdbench.testing import mutated


def softmax(z, temperature):
    top = max(z.tolist())
    weights = [torch.exp((x - top) / temperature) for x in z]
    total = sum(weights)
    return [w / total for w in weights]


def reference(student, teachers, temperature):
    total = 0.0
    for b in range(len(student)):
        each = [softmax(t[b], temperature) for t in teachers]
        p = [sum(values) / len(each) for values in zip(*each, strict=True)]
        q = softmax(student[b], temperature)
        total = total + sum(x * torch.log(x / y) for x, y in zip(p, q, strict=True))
    return temperature**2 * total / len(student)


@pytest.fixture
def compare(given, assert_same):
    """The module's loss against the reference."""

    def check(module, size, temperature, number):
        teachers = given.normal(number, *size, scale=3).detach()
        assert_same(
            lambda s: module.ensemble_kl(s, teachers.to(s.dtype), temperature),
            lambda s: reference(s, teachers, temperature),
            given.normal(*size, scale=3),
        )

    return check


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (4, 2), (1, 1000)], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("number", [2, 3])
def test_matches_the_definition(compare, size, temperature, number):
    compare(ensemble_kd, size, temperature, number)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("temperature**2", "temperature"),
        ("student / temperature", "student"),
        ("(teachers, temperature)", "(teachers)"),
    ],
)
def test_a_mistake_is_noticed(compare, right, wrong):
    with pytest.raises(AssertionError):
        compare(mutated(ensemble_kd, right, wrong), (4, 5), 4.0, 3)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("log_p.logsumexp(dim=0) - math.log(len(logits))", "log_p.mean(dim=0)"),
        ("log_softmax(logits / temperature, dim=2)", "log_softmax(logits, dim=2)"),
        ("log_softmax(logits / temperature, dim=2)", "softmax(logits, dim=2)"),
    ],
)
def test_a_wrong_mean_is_noticed(compare, monkeypatch, right, wrong):
    source = mutated(ensembles, right, wrong)
    monkeypatch.setattr(ensemble_kd, "log_mean_softmax", source.log_mean_softmax)
    with pytest.raises(AssertionError):
        compare(ensemble_kd, (4, 5), 4.0, 3)


def test_finite_at_extreme_logits():
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    teachers = torch.tensor([[[-1e4, 1e4, 0.0]], [[1e4, 0.0, -1e4]]])
    value = ensemble_kl(student, teachers, 4.0)
    (gradient,) = torch.autograd.grad(value, student)
    # Half of the mass is on class 1, to which the student gives e^-5000.
    expected = 16 * (2500 - torch.tensor(2.0).log())
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, torch.tensor([[2.0, -2.0, 0.0]]))


def test_gradient_does_not_depend_on_a_high_temperature(given):
    student, teachers = given.normal(3, 10), given.normal(3, 3, 10).detach()
    difference = (student - teachers.mean(0)).detach()
    limit = (difference - difference.mean(1, keepdim=True)) / 10 / 3
    for temperature in (1e3, 1e4):
        value = ensemble_kl(student, teachers, temperature)
        (gradient,) = torch.autograd.grad(value, student)
        torch.testing.assert_close(gradient, limit, rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_only(given, assert_trains, dtype):
    assert_trains(EnsembleKD(), given.batch(teachers=3, dtype=dtype))


def test_weights_scale_their_own_term(given):
    batch = given.batch(teachers=3)
    one = EnsembleKD(ce_weight=1, kd_weight=1).loss(batch)
    default = EnsembleKD().loss(batch)
    torch.testing.assert_close(default["ce"], 0.1 * one["ce"])
    torch.testing.assert_close(default["kd"], 0.9 * one["kd"])


@pytest.mark.parametrize("bad", [{"teachers": 1}, {"temperature": 0}])
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        EnsembleKD.configured(bad)
