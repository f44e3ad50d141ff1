"""pkt: neighbour probabilities and their KL, from the paper."""

import kdbench_feature_matching.pkt as module
import pytest
import torch
from kdbench_feature_matching.goals import Goal
from kdbench_feature_matching.pkt import (
    ProbabilisticTransfer,
    neighbour_probabilities,
    probability_loss,
)
from torch import nn

from kdbench.testing import mutated

STUDENT, TEACHER = {"pooled": (6,)}, {"pooled": (9,)}


def reference(student, teacher):
    def probabilities(rows):
        lengths = [torch.sqrt(sum(x * x for x in row)) for row in rows]
        n = range(len(rows))

        def kernel(i, j):
            dot = sum(x * y for x, y in zip(rows[i], rows[j], strict=True))
            return (dot / lengths[i] / lengths[j] + 1) / 2

        kernels = [[kernel(i, j) for j in n] for i in n]
        return [[k / sum(row) for k in row] for row in kernels]

    q, p = probabilities(student), probabilities(teacher)
    total = sum(
        a * torch.log((a + 1e-7) / (b + 1e-7))
        for row_p, row_q in zip(p, q, strict=True)
        for a, b in zip(row_p, row_q, strict=True)
    )
    return total / len(student) ** 2


def compare(given, assert_same, loss, items=4):
    teacher = given.normal(items, 6).detach()
    assert_same(
        lambda s: 100 * loss(s, Goal.of(teacher.to(s.dtype))),
        lambda s: 100 * reference(s, teacher),
        given.normal(items, 4),
    )


@pytest.mark.parametrize("items", [2, 5])
def test_matches_the_definition(given, assert_same, items):
    compare(given, assert_same, probability_loss, items)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("EPS).log() - (p_student", "EPS).log() + (p_student"),
        ("(p_teacher * log_ratio)", "(p_student * log_ratio)"),
        ("kernel.sum(dim=1, keepdim=True)", "kernel.sum()"),
        ("+ 1) / 2).clamp", "+ 1) ** 2).clamp"),
        ("* log_ratio).mean()", "* log_ratio).sum(dim=1).mean()"),
    ],
)
def test_mistakes_are_noticed(given, assert_same, old, new):
    wrong = mutated(module, old, new)
    with pytest.raises(AssertionError):
        compare(given, assert_same, wrong.probability_loss)


def test_is_a_divergence(given):
    """Zero for equal neighbourhoods and positive otherwise: the sign is right."""
    vectors = given.normal(5, 6)
    goal = Goal.of(vectors)
    assert probability_loss(3 * vectors, goal).item() == pytest.approx(0, abs=1e-12)
    assert probability_loss(given.normal(5, 6), goal) > 0


def test_rows_are_distributions(given):
    rows = neighbour_probabilities(given.normal(5, 3)).sum(dim=1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


def test_silent_opposite_and_extreme_items_stay_finite(given):
    student = given.normal(5, 3, scale=1e4).detach().float()
    student[1] = 0
    student[2] = -student[3]
    student.requires_grad_()
    value = probability_loss(student, Goal.of(given.normal(5, 4).float()))
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert gradient[1].count_nonzero() == 0


def test_a_batch_of_one_has_no_neighbours(given):
    student = given.normal(1, 4)
    value = probability_loss(student, Goal.of(given.normal(1, 6)))
    (gradient,) = torch.autograd.grad(value, student)
    assert value == 0
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_only(given, assert_trains, dtype):
    batch = given.batch(student_shapes=STUDENT, teacher_shapes=TEACHER, dtype=dtype)
    assert_trains(ProbabilisticTransfer(), batch)


def test_weights_scale_their_own_term(given):
    batch = given.batch(student_shapes=STUDENT, teacher_shapes=TEACHER)
    pooled = batch.student.features["pooled"], Goal(batch.teacher, "pooled")
    terms = ProbabilisticTransfer(ce_weight=2).loss(batch)
    expected = 30000 * probability_loss(*pooled)
    torch.testing.assert_close(terms["probability"], expected)
    ce = nn.CrossEntropyLoss()(batch.student.logits, batch.targets)
    torch.testing.assert_close(terms["ce"], 2 * ce)
