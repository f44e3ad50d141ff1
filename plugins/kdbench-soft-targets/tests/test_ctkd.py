"""ctkd: a temperature that climbs on the KL that the student descends."""

import math
from dataclasses import replace

import pytest
import torch
from kdbench_soft_targets import ctkd, gradient_reversal
from kdbench_soft_targets.ctkd import CurriculumTemperature

from kdbench import Outputs, UserError
from kdbench.testing import mutated


def softmax(z, temperature):
    weights = torch.exp((z - max(z.tolist())) / temperature)
    return weights / weights.sum()


def soft_kl(student, teacher, temperature):
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        p, q = softmax(t, temperature), softmax(s, temperature)
        total = total + (p * torch.log(p / q)).sum()
    return temperature**2 * total / len(student)


def reference(student, raw, teacher, targets, epoch):
    """Its value is the loss; its gradients are what either side should follow."""
    temperature = 1 + 20 / (1 + torch.exp(-raw))
    strength = (1 - math.cos(math.pi * min(epoch + 1, 10) / 10)) / 2
    adversary = soft_kl(student.detach(), teacher, temperature)
    kd = soft_kl(student, teacher, temperature.detach())
    kd = kd - strength * (adversary - adversary.detach())
    ce = sum(
        -torch.log(softmax(s, 1)[y]) for s, y in zip(student, targets, strict=True)
    )
    return 0.1 * ce / len(student) + 0.9 * kd


def compare(given, assert_same, module, size, epoch=3, source=gradient_reversal):
    batch = given.batch(items=size[0], classes=size[1], epoch=epoch + 0.5)
    teacher = given.normal(*size, scale=3).detach()

    def fast(student, raw):
        adversary = source.Adversary()
        del adversary.raw
        adversary.raw = raw.to(student.dtype)
        teachers = (Outputs(teacher.to(student.dtype)),)
        mine = replace(batch, students=(Outputs(student),), teachers=teachers)
        terms = module.CurriculumTemperature().loss(replace(mine, adapters=adversary))
        return sum(terms.values())

    def slow(student, raw):
        return reference(student, raw, teacher, batch.targets, epoch)

    student, raw = given.normal(*size, scale=3), given.normal(1).sum()
    held = raw.detach()
    assert_same(lambda s: fast(s, held), lambda s: slow(s, held), student)
    # T^2 times a small KL: in float32 its slope in T has lost three more digits.
    (expected,) = torch.autograd.grad(slow(student, raw), raw)
    for dtype, rtol, atol in ((torch.float64, 1e-9, 0), (torch.float32, 1e-2, 1e-4)):
        own = held.to(dtype).requires_grad_()
        value = fast(student.detach().to(dtype), own)
        (slope,) = torch.autograd.grad(value, own)
        torch.testing.assert_close(slope.double(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (5, 2), (2, 1000)], ids=str)
@pytest.mark.parametrize("epoch", [0, 3, 30])
def test_matches_the_definition(given, assert_same, size, epoch):
    compare(given, assert_same, ctkd, size, epoch)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(1 - math.cos", "(1 + math.cos"),
        ("math.floor(epoch) + 1)", "math.floor(epoch))"),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, right, wrong):
    with pytest.raises(AssertionError, match="not close"):
        compare(given, assert_same, mutated(ctkd, right, wrong), (5, 4))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("held - strength *", "held + strength *"),
        ("strength * (share - held)", "(share - held)"),
        ("share = self.raw.sigmoid()", "share = self.raw.tanh()"),
    ],
)
def test_a_wrong_reversal_is_noticed(given, assert_same, right, wrong):
    source = mutated(gradient_reversal, right, wrong)
    with pytest.raises(AssertionError, match="not close"):
        compare(given, assert_same, ctkd, (5, 4), source=source)


def test_a_step_makes_the_student_better_and_the_temperature_worse(given):
    strategy, batch = CurriculumTemperature(ce_weight=0), given.batch()
    adversary = strategy.adapters(None, None)
    batch = replace(batch, adapters=adversary)
    own = {"student": batch.student.logits, "temperature": adversary.raw}
    before = strategy.loss(batch)["kd"]
    gradients = torch.autograd.grad(before, list(own.values()))
    for (side, tensor), gradient in zip(own.items(), gradients, strict=True):
        with torch.no_grad():
            tensor -= 10 * gradient
            after = strategy.loss(batch)["kd"]
            tensor += 10 * gradient
        assert (after < before) == (side == "student")


def test_starts_as_the_authors_do_and_ramps_over_ten_epochs():
    strategy = CurriculumTemperature()
    adversary = strategy.adapters(None, None)
    assert adversary(1.0).item() == pytest.approx(1 / (1 + math.exp(-1)))
    assert list(adversary.state_dict()) == ["raw"]
    ramp = [strategy.strength(epoch) for epoch in (0, 4.9, 9, 200)]
    assert ramp == pytest.approx([(1 - math.cos(math.pi / 10)) / 2, 0.5, 1, 1])
    assert CurriculumTemperature(ramp_epochs=0).strength(0) == 1


def test_finite_at_extreme_logits(given):
    strategy, batch = CurriculumTemperature(), given.batch(items=20, scale=1e3)
    batch = replace(batch, adapters=strategy.adapters(None, None))
    terms = strategy.loss(batch)
    wanted = [batch.student.logits, batch.adapters.raw]
    for gradient in torch.autograd.grad(sum(terms.values()), wanted):
        assert torch.isfinite(gradient).all()
    assert all(torch.isfinite(value) for value in terms.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_and_the_temperature(given, assert_trains, dtype):
    strategy = CurriculumTemperature()
    adversary = strategy.adapters(None, None)
    assert_trains(strategy, given.batch(dtype=dtype, adapters=adversary, epoch=0))


def test_weights_scale_their_own_term(given):
    strategy = CurriculumTemperature(ce_weight=1, kd_weight=1)
    batch = given.batch(adapters=strategy.adapters(None, None))
    one, default = strategy.loss(batch), CurriculumTemperature().loss(batch)
    torch.testing.assert_close(default["ce"], 0.1 * one["ce"])
    torch.testing.assert_close(default["kd"], 0.9 * one["kd"])


@pytest.mark.parametrize(
    "bad", [{"start_temperature": 0}, {"temperature_range": -1}, {"ramp_epochs": -1}]
)
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        CurriculumTemperature.configured(bad)
