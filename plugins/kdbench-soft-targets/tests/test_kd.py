"""kd: CE and T^2 KL from the definition, its high-temperature limit, its weights."""

from dataclasses import replace

import pytest
import torch
from kdbench_soft_targets import kd
from kdbench_soft_targets.kd import SoftTargets

from kdbench import Outputs, UserError, losses, soft_kl
from kdbench.testing import mutated

SIZES = [(1, 2), (1, 10), (5, 2), (2, 1000)]


def softmax(z, temperature):
    """Over one item's classes, one by one."""
    top = max(z.tolist())
    weights = [torch.exp((x - top) / temperature) for x in z]
    total = sum(weights)
    return [w / total for w in weights]


def reference(student, teacher, targets, temperature):
    total = 0.0
    for s, t, y in zip(student, teacher, targets, strict=True):
        pairs = zip(softmax(s, temperature), softmax(t, temperature), strict=True)
        kl = sum(p * torch.log(p / q) for q, p in pairs)
        total = total - 0.1 * torch.log(softmax(s, 1)[y]) + 0.9 * temperature**2 * kl
    return total / len(student)


def compare(given, assert_same, module, size, temperature=4.0):
    batch = given.batch(items=size[0], classes=size[1])
    teacher = given.normal(*size, scale=3).detach()
    strategy = module.SoftTargets(temperature=temperature)

    def fast(student):
        sides = (Outputs(student),), (Outputs(teacher.to(student.dtype)),)
        terms = strategy.loss(replace(batch, students=sides[0], teachers=sides[1]))
        return sum(terms.values())

    def slow(student):
        return reference(student, teacher, batch.targets, temperature)

    assert_same(fast, slow, given.normal(*size, scale=3))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_matches_the_definition(given, assert_same, size, temperature):
    compare(given, assert_same, kd, size, temperature)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("soft_kl(student, teacher, self", "soft_kl(student, -teacher, self"),
        ("self.kd_weight * kd,", "self.ce_weight * kd,"),
        ("self.temperature)\n        return {", "1.0)\n        return {"),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, right, wrong):
    with pytest.raises(AssertionError, match="not close"):
        compare(given, assert_same, mutated(kd, right, wrong), (5, 4))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("return kl * temperature**2", "return kl"),
        (").sum() / len(student)", ").sum()"),
    ],
)
def test_a_wrong_divergence_is_noticed(given, assert_same, monkeypatch, right, wrong):
    monkeypatch.setattr(kd, "soft_kl", mutated(losses, right, wrong).soft_kl)
    with pytest.raises(AssertionError, match="not close"):
        compare(given, assert_same, kd, (5, 4))


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


@pytest.mark.parametrize("scale", [1, 30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_only(given, assert_trains, dtype, scale):
    assert_trains(SoftTargets(), given.batch(dtype=dtype, scale=scale))


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


@pytest.mark.parametrize("temperature", [0, -1, float("nan")])
def test_refuses_a_temperature_that_is_not_positive(temperature):
    with pytest.raises(UserError, match="temperature"):
        SoftTargets.configured({"temperature": temperature})
