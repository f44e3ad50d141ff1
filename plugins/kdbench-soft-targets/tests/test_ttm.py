"""ttm: KL to the power-transformed teacher, from the paper; plain and weighted."""

from dataclasses import replace

import pytest
import torch
from kdbench_soft_targets import ttm
from kdbench_soft_targets.ttm import TransformedTeacher, transformed_kl

from kdbench import Outputs, UserError, soft_kl
from kdbench.testing import mutated


def softmax(z):
    top = max(z.tolist())
    weights = [torch.exp(x - top) for x in z]
    total = sum(weights)
    return [w / total for w in weights]


def reference(student, teacher, targets, gamma, weighted):
    total = 0.0
    for s, t, y in zip(student, teacher, targets.tolist(), strict=True):
        powers, q = [p**gamma for p in softmax(t)], softmax(s)
        norm = sum(powers)
        kl = sum(
            p / norm * torch.log(p / norm / b) for p, b in zip(powers, q, strict=True)
        )
        total = total - torch.log(q[y]) + 45 * kl * (norm if weighted else 1)
    return total / len(student)


def compare(given, assert_same, module, size, temperature=10.0, weighted=True):
    batch = given.batch(items=size[0], classes=size[1])
    teacher = given.normal(*size, scale=3).detach()
    strategy = module.TransformedTeacher(
        teacher_temperature=temperature, weighted=weighted
    )

    def fast(student):
        sides = (Outputs(student),), (Outputs(teacher.to(student.dtype)),)
        terms = strategy.loss(replace(batch, students=sides[0], teachers=sides[1]))
        return sum(terms.values())

    def slow(student):
        return reference(student, teacher, batch.targets, 1 / temperature, weighted)

    assert_same(fast, slow, given.normal(*size, scale=3))


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (5, 2), (2, 1000)], ids=str)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 10.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_matches_the_definition(given, assert_same, size, temperature, weighted):
    compare(given, assert_same, ttm, size, temperature, weighted)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(at_least_float32(student), dim=1)", "(student / temperature, dim=1)"),
        ("dim=1) / temperature", "dim=1) * temperature"),
        ("log_teacher = F.log_softmax(powers, dim=1)", "log_teacher = powers"),
        ("(log_student, log_teacher,", "(log_teacher, log_student,"),
        ("powers.exp()", "log_teacher.exp()"),
        ("if weighted else kl).mean()", "if weighted else kl).sum()"),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, right, wrong):
    with pytest.raises(AssertionError, match="not close"):
        compare(given, assert_same, mutated(ttm, right, wrong), (5, 4))


def test_is_soft_targets_at_temperature_one(given):
    student, teacher = given.normal(4, 7), given.normal(4, 7)
    expected = soft_kl(student, teacher, 1.0)
    torch.testing.assert_close(transformed_kl(student, teacher, 1.0), expected)
    torch.testing.assert_close(transformed_kl(student, teacher, 1.0, True), expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_finite_at_extreme_logits(given, weighted):
    student = given.normal(20, 5, scale=1e3).float().detach().requires_grad_()
    teacher = given.normal(20, 5, scale=1e3).float()
    value = transformed_kl(student, teacher, 10.0, weighted)
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weighted", [False, True])
def test_trains_the_student_only(given, assert_trains, dtype, weighted):
    assert_trains(TransformedTeacher(weighted=weighted), given.batch(dtype=dtype))


def test_weights_scale_their_own_term(given):
    batch = given.batch()
    one = TransformedTeacher(ttm_weight=1).loss(batch)
    two = TransformedTeacher(ce_weight=3).loss(batch)
    torch.testing.assert_close(two["ce"], 3 * one["ce"])
    torch.testing.assert_close(two["ttm"], 45 * one["ttm"])


@pytest.mark.parametrize("bad", [{"teacher_temperature": 0}, {"ttm_weight": -1}])
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        TransformedTeacher.configured(bad)
