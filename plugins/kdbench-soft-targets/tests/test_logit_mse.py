"""logit_mse: the definition, and its relation to kd at a high temperature."""

import pytest
import torch
from kdbench_soft_targets import logit_mse as module
from kdbench_soft_targets.logit_mse import LogitMSE, logit_mse

from kdbench import UserError, soft_kl
from kdbench.testing import mutated


def reference(student, teacher):
    items, classes = student.shape
    each = [
        (student[b, c] - teacher[b, c]) ** 2
        for b in range(items)
        for c in range(classes)
    ]
    return sum(each) / (items * classes)


def compare(given, assert_same, loss, size, scale=1):
    teacher = given.normal(*size, scale=scale).detach()
    assert_same(
        lambda s: loss(s, teacher.to(s.dtype)),
        lambda s: reference(s, teacher),
        given.normal(*size, scale=scale),
    )


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (5, 2), (2, 1000)], ids=str)
@pytest.mark.parametrize("scale", [1, 1e3, 1e4])
def test_matches_the_definition(given, assert_same, size, scale):
    compare(given, assert_same, logit_mse, size, scale)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(teacher.detach()))", '(teacher.detach()), reduction="sum")'),
        ("(at_least_float32(student),", "(-at_least_float32(student),"),
        ("F.mse_loss(", "F.l1_loss("),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, right, wrong):
    wrong_loss = mutated(module, right, wrong).logit_mse
    with pytest.raises(AssertionError, match="not close"):
        compare(given, assert_same, wrong_loss, (5, 4))


def test_is_twice_the_limit_of_soft_targets(given):
    student, teacher = (
        z - z.mean(dim=1, keepdim=True) for z in (given.normal(3, 10) for _ in "st")
    )
    limit = soft_kl(student, teacher, 1e3)
    torch.testing.assert_close(
        logit_mse(student, teacher), 2 * limit, rtol=1e-2, atol=0
    )


@pytest.mark.parametrize("scale", [1, 30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_only(given, assert_trains, dtype, scale):
    assert_trains(LogitMSE(), given.batch(dtype=dtype, scale=scale))


def test_weights_scale_their_own_term(given):
    batch = given.batch()
    one = LogitMSE(ce_weight=1, mse_weight=1).loss(batch)
    two = LogitMSE(ce_weight=2, mse_weight=5).loss(batch)
    torch.testing.assert_close(two["ce"], 2 * one["ce"])
    torch.testing.assert_close(two["mse"], 5 * one["mse"])
    ce = torch.nn.CrossEntropyLoss()(batch.student.logits, batch.targets)
    torch.testing.assert_close(one["ce"], ce)
    default = LogitMSE().loss(batch)
    torch.testing.assert_close(default["ce"], 0.1 * one["ce"])
    torch.testing.assert_close(default["mse"], 0.9 * one["mse"])


def test_refuses_an_unknown_name():
    with pytest.raises(UserError, match="mse_weight"):
        LogitMSE.configured({"mse_wieght": 1})
