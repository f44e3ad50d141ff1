"""dkd: both KL terms from the paper, its identity with kd, its warm-up."""

import math

import pytest
import torch
from kdbench_soft_targets.divergence import soft_kl
from kdbench_soft_targets.dkd import DecoupledKD, dkd_losses

from kdbench import UserError


def softmax(z, temperature):
    top = max(z.tolist())
    weights = [torch.exp((x - top) / temperature) for x in z]
    total = sum(weights)
    return [w / total for w in weights]


def kl(p, q):
    return sum(a * torch.log(a / b) for a, b in zip(p, q, strict=True))


def reference(student, teacher, targets, temperature):
    """T^2 (TCKD + 8 NCKD), from probabilities as the paper writes them."""
    total = 0.0
    for s, t, y in zip(student, teacher, targets.tolist(), strict=True):
        p, q = softmax(t, temperature), softmax(s, temperature)
        rest_p = sum(x for c, x in enumerate(p) if c != y)
        rest_q = sum(x for c, x in enumerate(q) if c != y)
        within_p = [x / rest_p for c, x in enumerate(p) if c != y]
        within_q = [x / rest_q for c, x in enumerate(q) if c != y]
        total = total + kl([p[y], rest_p], [q[y], rest_q]) + 8 * kl(within_p, within_q)
    return temperature**2 * total / len(student)


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (5, 2), (2, 1000)], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_matches_the_definition(given, assert_same, size, temperature):
    teacher = given.normal(*size, scale=3).detach()
    targets = given.classes(*size)

    def fast(student):
        target, non_target = dkd_losses(
            student, teacher.to(student.dtype), targets, temperature
        )
        return target + 8 * non_target

    assert_same(
        fast,
        lambda s: reference(s, teacher, targets, temperature),
        given.normal(*size, scale=3),
    )


@pytest.mark.parametrize("classes", [2, 7])
def test_parts_add_up_to_soft_targets(given, classes):
    """Equation 6: KD = TCKD + (1 - p_t) NCKD, item by item."""
    for _ in range(5):
        student, teacher = given.normal(1, classes), given.normal(1, classes)
        y = given.classes(1, classes)
        target, non_target = dkd_losses(student, teacher, y, 4.0)
        rest = 1 - torch.softmax(teacher / 4, dim=1)[0, y]
        whole = target + rest.squeeze() * non_target
        torch.testing.assert_close(whole, soft_kl(student, teacher, 4.0))


@pytest.mark.parametrize("target", [0, 1, 2])
def test_finite_at_extreme_logits(target):
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0.0]])
    both = dkd_losses(student, teacher, torch.tensor([target]), 4.0)
    (gradient,) = torch.autograd.grad(sum(both), student)
    assert all(torch.isfinite(x) for x in both)
    assert torch.isfinite(gradient).all()
    if target == 1:  # the teacher is sure, the student gives e^-5000; the rest agrees
        torch.testing.assert_close(both[0], torch.tensor(16 * 5000.0))
        torch.testing.assert_close(both[1], torch.tensor(16 * 2500.0))


def test_warm_up_is_linear_over_whole_epochs(given):
    strategy = DecoupledKD(warmup_epochs=20)
    factors = {0.0: 1 / 20, 0.99: 1 / 20, 1.0: 2 / 20, 18.5: 19 / 20, 19.0: 1, 200.0: 1}
    assert all(math.isclose(strategy.warm_up(e), f) for e, f in factors.items())
    assert DecoupledKD(warmup_epochs=0).warm_up(0.0) == 1
    batch = given.batch(epoch=3.5)
    warm, full = strategy.loss(batch), DecoupledKD(warmup_epochs=0).loss(batch)
    torch.testing.assert_close(warm["ce"], full["ce"])
    torch.testing.assert_close(warm["target"], full["target"] * 4 / 20)
    torch.testing.assert_close(warm["non_target"], full["non_target"] * 4 / 20)


def test_trains_the_student_only(given, assert_trains):
    assert_trains(DecoupledKD(), given.batch())


def test_weights_scale_their_own_term(given):
    batch = given.batch()
    one = DecoupledKD(non_target_weight=1).loss(batch)
    two = DecoupledKD(ce_weight=2, target_weight=3, non_target_weight=5).loss(batch)
    torch.testing.assert_close(two["ce"], 2 * one["ce"])
    torch.testing.assert_close(two["target"], 3 * one["target"])
    torch.testing.assert_close(two["non_target"], 5 * one["non_target"])


def test_bfloat16(given, assert_trains):
    assert_trains(DecoupledKD(), given.batch(dtype=torch.bfloat16, scale=30))


@pytest.mark.parametrize("bad", [{"temperature": 0}, {"warmup_epochs": -1}])
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        DecoupledKD.configured(bad)
