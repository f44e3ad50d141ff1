"""cc: the Gaussian kernel's Taylor series, from the paper."""

import math

import kdbench_feature_matching.cc as module
import pytest
import torch
from kdbench_feature_matching.cc import CorrelationCongruence, congruence_loss, kernel
from kdbench_feature_matching.goals import Goal
from torch import nn

from kdbench import UserError
from kdbench.testing import mutated

STUDENT, TEACHER = {"pooled": (6,)}, {"pooled": (9,)}


def reference(student, teacher, gamma, order):
    def kernel(a, b):
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        dot = (
            dot / torch.sqrt(sum(x * x for x in a)) / torch.sqrt(sum(x * x for x in b))
        )
        total = 1.0
        term = 1.0
        for p in range(1, order + 1):
            term = term * 2 * gamma * dot / p
            total = total + term
        return math.exp(-2 * gamma) * total

    n = range(len(student))
    gaps = [
        kernel(student[i], student[j]) - kernel(teacher[i], teacher[j])
        for i in n
        for j in n
    ]
    return sum(gap**2 for gap in gaps) / len(gaps)


def compare(given, assert_same, loss, items=4, gamma=0.4, order=2):
    teacher = given.normal(items, 6).detach()
    assert_same(
        lambda s: 100 * loss(s, Goal.of(teacher.to(s.dtype)), gamma, order),
        lambda s: 100 * reference(s, teacher, gamma, order),
        given.normal(items, 4),
    )


@pytest.mark.parametrize("items", [2, 5])
@pytest.mark.parametrize(("gamma", "order"), [(0.4, 1), (0.4, 2), (1.5, 4)])
def test_matches_the_definition(given, assert_same, items, gamma, order):
    compare(given, assert_same, congruence_loss, items, gamma, order)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("math.exp(-2 * gamma)", "math.exp(-gamma)"),
        ("range(order + 1)", "range(order)"),
        ("math.factorial(p)", "1"),
        ("flatten(1), dim=1", "flatten(1), dim=0"),
    ],
)
def test_mistakes_are_noticed(given, assert_same, old, new):
    wrong = mutated(module, old, new)
    with pytest.raises(AssertionError):
        compare(given, assert_same, wrong.congruence_loss)


def test_the_series_tends_to_the_gaussian_kernel(given):
    vectors = given.normal(5, 3)
    unit = nn.functional.normalize(vectors, dim=1)
    gauss = (-0.4 * torch.cdist(unit, unit).square()).exp()
    torch.testing.assert_close(kernel(vectors, 0.4, 12), gauss)


def test_silent_single_and_extreme_items_stay_finite(given):
    student = given.normal(4, 3, scale=1e4).detach().float()
    student[1] = 0
    for items in (1, 4):
        rows = student[:items].clone().requires_grad_()
        teacher = Goal.of(given.normal(items, 5).float())
        value = congruence_loss(rows, teacher, 0.4, 2)
        (gradient,) = torch.autograd.grad(value, rows)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_only(given, assert_trains, dtype):
    batch = given.batch(student_shapes=STUDENT, teacher_shapes=TEACHER, dtype=dtype)
    assert_trains(CorrelationCongruence(), batch)


def test_weights_scale_their_own_term(given):
    batch = given.batch(student_shapes=STUDENT, teacher_shapes=TEACHER)
    pooled = batch.student.features["pooled"], Goal(batch.teacher, "pooled")
    terms = CorrelationCongruence(ce_weight=2).loss(batch)
    expected = 100 * congruence_loss(*pooled, 0.4, 2)
    torch.testing.assert_close(terms["congruence"], expected)
    ce = nn.CrossEntropyLoss()(batch.student.logits, batch.targets)
    torch.testing.assert_close(terms["ce"], 2 * ce)


@pytest.mark.parametrize("values", [{"gamma": 0}, {"order": 0}], ids=str)
def test_refuses_a_kernel_that_sees_nothing(values):
    with pytest.raises(UserError, match="gamma must be > 0 and order >= 1"):
        CorrelationCongruence.configured(values)
