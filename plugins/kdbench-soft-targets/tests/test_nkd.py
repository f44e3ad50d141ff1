"""nkd: target and normalised non-target cross-entropies, from the paper."""

from dataclasses import replace

import pytest
import torch
from kdbench_soft_targets import nkd
from kdbench_soft_targets.nkd import NormalisedKD, nkd_losses

from kdbench import Outputs, UserError
from kdbench.testing import mutated


def softmax(z, temperature):
    top = max(z.tolist())
    weights = [torch.exp((x - top) / temperature) for x in z]
    total = sum(weights)
    return [w / total for w in weights]


def reference(student, teacher, targets, temperature):
    total = 0.0
    for s, t, y in zip(student, teacher, targets.tolist(), strict=True):
        p, q = softmax(t, 1), softmax(s, 1)
        total = total - torch.log(q[y]) - p[y] * torch.log(q[y])
        p, q = softmax(t, temperature), softmax(s, temperature)
        rest_p = sum(x for c, x in enumerate(p) if c != y)
        rest_q = sum(x for c, x in enumerate(q) if c != y)
        for c in range(len(p)):
            if c != y:
                own = p[c] / rest_p * torch.log(q[c] / rest_q)
                total = total - 3.5 * temperature**2 * own
    return total / len(student)


def compare(given, assert_same, module, size, temperature=1.0):
    batch = given.batch(items=size[0], classes=size[1])
    teacher = given.normal(*size, scale=3).detach()
    strategy = module.NormalisedKD(temperature=temperature)

    def fast(student):
        sides = (Outputs(student),), (Outputs(teacher.to(student.dtype)),)
        terms = strategy.loss(replace(batch, students=sides[0], teachers=sides[1]))
        return sum(terms.values())

    def slow(student):
        return reference(student, teacher, batch.targets, temperature)

    assert_same(fast, slow, given.normal(*size, scale=3))


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (5, 2), (2, 1000)], ids=str)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_matches_the_definition(given, assert_same, size, temperature):
    compare(given, assert_same, nkd, size, temperature)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (" * temperature**2", ""),
        (".neg().exp()\n    target = p_true", ".exp()\n    target = p_true"),
        ("without(student / temperature, targets)", "student / temperature"),
        ("without(teacher / temperature, targets)", "(teacher / temperature)"),
        ("(teacher / temperature, targets).softmax", "(teacher, targets).softmax"),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, right, wrong):
    with pytest.raises(AssertionError, match="not close"):
        compare(given, assert_same, mutated(nkd, right, wrong), (5, 4), 3.0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_finite_at_extreme_logits(given, temperature):
    student = given.normal(20, 5, scale=1e3).float().detach().requires_grad_()
    teacher, targets = given.normal(20, 5, scale=1e3).float(), given.classes(20, 5)
    both = nkd_losses(student, teacher, targets, temperature)
    (gradient,) = torch.autograd.grad(sum(both), student)
    assert torch.isfinite(sum(both))
    assert torch.isfinite(gradient).all()


def test_two_classes_leave_no_other_to_match(given):
    student, teacher = given.normal(4, 2), given.normal(4, 2)
    _, non_target = nkd_losses(student, teacher, given.classes(4, 2), 1.0)
    assert non_target == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_only(given, assert_trains, dtype):
    assert_trains(NormalisedKD(), given.batch(dtype=dtype))


def test_weights_scale_their_own_term(given):
    batch = given.batch()
    one = NormalisedKD(non_target_weight=1).loss(batch)
    two = NormalisedKD(ce_weight=2, target_weight=3).loss(batch)
    for name, factor in {"ce": 2, "target": 3, "non_target": 3.5}.items():
        torch.testing.assert_close(two[name], factor * one[name])


@pytest.mark.parametrize("bad", [{"temperature": 0}, {"target_weight": -1}])
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        NormalisedKD.configured(bad)
