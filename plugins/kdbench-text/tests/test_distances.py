"""Distances on texts: the definitions, one element at a time; padding never counts."""

import pytest
import torch
from kdbench_text.distances import (
    direction_mse,
    score_mse,
    soft_cross_entropy,
    state_mse,
)

from kdbench import soft_kl

PRESENT = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]).bool()


def softmax(z, temperature):
    top = max(z.tolist())
    weights = [torch.exp((x - top) / temperature) for x in z]
    return [w / sum(weights) for w in weights]


@pytest.mark.parametrize("size", [(1, 2), (5, 3)], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_soft_targets(given, assert_same, size, temperature):
    teacher = given.normal(*size, scale=3).detach()

    def both(student):
        for s, t in zip(student, teacher, strict=True):
            yield from zip(
                softmax(s, temperature), softmax(t, temperature), strict=True
            )

    def cross_entropy(student):
        return -sum(p * torch.log(q) for q, p in both(student)) / len(student)

    def kl(student):
        total = sum(p * torch.log(p / q) for q, p in both(student))
        return temperature**2 * total / len(student)

    student = given.normal(*size, scale=3)
    for fast, slow in ((soft_cross_entropy, cross_entropy), (soft_kl, kl)):
        assert_same(
            lambda s, fast=fast: fast(s, teacher.to(s.dtype), temperature),
            slow,
            student,
        )


@pytest.mark.parametrize("size", [(1, 2), (3, 7)], ids=str)
def test_direction(given, assert_same, size):
    teacher = given.normal(*size).detach()

    def unit(x):
        return [v / torch.sqrt(sum(w * w for w in x)) for v in x]

    def slow(student):
        total = 0.0
        for s, t in zip(student, teacher, strict=True):
            total = total + sum((a - b) ** 2 for a, b in zip(unit(s), unit(t)))  # noqa: B905
        return total / student.numel()

    assert_same(
        lambda s: direction_mse(s, teacher.to(s.dtype)), slow, given.normal(*size)
    )


def test_direction_does_not_depend_on_length(given):
    student, teacher = given.normal(3, 5), given.normal(3, 5)
    torch.testing.assert_close(
        direction_mse(7 * student, teacher), direction_mse(student, 0.1 * teacher)
    )
    zero = torch.zeros(3, 5, requires_grad=True)
    value = direction_mse(zero, teacher.float())
    value.backward()
    assert torch.isfinite(value)
    assert zero.grad.count_nonzero() == 0


def test_states(given, assert_same):
    teacher = given.normal(3, 4, 2).detach()

    def slow(student):
        own = [
            (student[b, p, d] - teacher[b, p, d]) ** 2
            for b in range(3)
            for p in range(4)
            for d in range(2)
            if PRESENT[b, p]
        ]
        return sum(own) / len(own)

    assert_same(
        lambda s: state_mse(s, teacher.to(s.dtype), PRESENT),
        slow,
        given.normal(3, 4, 2),
    )


@pytest.mark.parametrize("heads", [(2, 2), (2, 3), (1, 4)], ids=str)
def test_scores(given, assert_same, heads):
    """Heads one by one, or their means where their numbers differ."""
    teacher = given.normal(3, heads[1], 4, 4).detach()

    def slow(student):
        goal = teacher
        if heads[0] != heads[1]:
            student = sum(student[:, h] for h in range(heads[0]))[:, None] / heads[0]
            goal = sum(goal[:, h] for h in range(heads[1]))[:, None] / heads[1]
        own = [
            (student[b, h, q, k] - goal[b, h, q, k]) ** 2
            for b in range(3)
            for h in range(student.shape[1])
            for q in range(4)
            for k in range(4)
            if PRESENT[b, q] and PRESENT[b, k]
        ]
        return sum(own) / len(own)

    assert_same(
        lambda s: score_mse(s, teacher.to(s.dtype), PRESENT),
        slow,
        given.normal(3, heads[0], 4, 4),
    )


@pytest.mark.parametrize("value", [1e4, float("inf"), float("nan")])
def test_what_stands_at_padding_does_not_matter(given, value):
    student, teacher = given.normal(3, 4, 2), given.normal(3, 4, 2)
    wanted = state_mse(student, teacher, PRESENT)
    changed = student.detach().masked_fill(~PRESENT[:, :, None], value).requires_grad_()
    found = state_mse(changed, teacher, PRESENT)
    torch.testing.assert_close(found, wanted)
    found.backward()
    assert torch.isfinite(changed.grad).all()
    assert changed.grad[~PRESENT].count_nonzero() == 0


def test_finite_at_extreme_values(given):
    student = given.normal(3, 2, 4, 4, scale=1e4)
    value = score_mse(student, -student.detach(), PRESENT)
    assert torch.isfinite(value)
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    for loss in (soft_kl, soft_cross_entropy):
        value = loss(logits, -logits.detach(), 1.0)
        (gradient,) = torch.autograd.grad(value, logits)
        torch.testing.assert_close(value, torch.tensor(2e4))
        assert torch.isfinite(gradient).all()
