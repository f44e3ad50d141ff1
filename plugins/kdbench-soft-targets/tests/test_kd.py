"""kd: T^2 KL from the definition, its high-temperature limit, its weights."""

import pytest
import torch
from kdbench_soft_targets.divergence import soft_kl
from kdbench_soft_targets.kd import SoftTargets

from kdbench import UserError

SIZES = [(1, 2), (1, 10), (5, 2), (2, 1000)]


def softmax(z, temperature):
    """Over one item's classes, one by one."""
    top = max(z.tolist())
    weights = [torch.exp((x - top) / temperature) for x in z]
    total = sum(weights)
    return [w / total for w in weights]


def reference(student, teacher, temperature):
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        pairs = zip(softmax(s, temperature), softmax(t, temperature), strict=True)
        total = total + sum(p * torch.log(p / q) for q, p in pairs)
    return temperature**2 * total / len(student)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_matches_the_definition(given, assert_same, size, temperature):
    teacher = given.normal(*size, scale=3).detach()
    assert_same(
        lambda s: soft_kl(s, teacher.to(s.dtype), temperature),
        lambda s: reference(s, teacher, temperature),
        given.normal(*size, scale=3),
    )


def test_finite_at_extreme_logits():
    student = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0.0], [-1e4, 1e4, 0.0]])
    value = soft_kl(student, teacher, 4.0)
    # First item: the teacher is sure of class 1, to which the student gives e^-5000.
    torch.testing.assert_close(value, torch.tensor(16 * 5000 / 2.0))
    (gradient,) = torch.autograd.grad(value, student)
    expected = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]) * 4 / 2
    torch.testing.assert_close(gradient, expected)


def test_gradient_does_not_depend_on_a_high_temperature(given):
    """Hinton et al., equation 4: (z_s - z_t) / C per item, of centred logits."""
    student = given.normal(3, 10)
    teacher = given.normal(3, 10).detach()
    difference = (student - teacher).detach()
    limit = (difference - difference.mean(1, keepdim=True)) / 10 / 3
    for temperature in (1e3, 1e4):
        (gradient,) = torch.autograd.grad(
            soft_kl(student, teacher, temperature), student
        )
        torch.testing.assert_close(gradient, limit, rtol=2e-2, atol=1e-4)


def test_trains_the_student_only(given, assert_trains):
    assert_trains(SoftTargets(), given.batch())


def test_weights_scale_their_own_term(given):
    batch = given.batch()
    one = SoftTargets(ce_weight=1, kd_weight=1).loss(batch)
    two = SoftTargets(ce_weight=2, kd_weight=5).loss(batch)
    torch.testing.assert_close(two["ce"], 2 * one["ce"])
    torch.testing.assert_close(two["kd"], 5 * one["kd"])
    default = SoftTargets().loss(batch)
    torch.testing.assert_close(default["ce"], 0.1 * one["ce"])
    torch.testing.assert_close(default["kd"], 0.9 * one["kd"])
    ce = torch.nn.CrossEntropyLoss()(batch.student.logits, batch.targets)
    torch.testing.assert_close(one["ce"], ce)


def test_bfloat16(given, assert_trains):
    assert_trains(SoftTargets(), given.batch(dtype=torch.bfloat16, scale=30))


@pytest.mark.parametrize("temperature", [0, -1, float("nan")])
def test_refuses_a_temperature_that_is_not_positive(temperature):
    with pytest.raises(UserError, match="temperature"):
        SoftTargets.configured({"temperature": temperature})
