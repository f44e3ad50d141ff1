"""logit_mse: the definition, and its relation to kd at a high temperature."""

import pytest
import torch
from kdbench_soft_targets.divergence import soft_kl
from kdbench_soft_targets.logit_mse import LogitMSE, logit_mse

from kdbench import UserError


def reference(student, teacher):
    items, classes = student.shape
    each = [
        (student[b, c] - teacher[b, c]) ** 2
        for b in range(items)
        for c in range(classes)
    ]
    return sum(each) / (items * classes)


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (5, 2), (2, 1000)], ids=str)
@pytest.mark.parametrize("scale", [1, 1e4])
def test_matches_the_definition(given, assert_same, size, scale):
    teacher = given.normal(*size, scale=scale).detach()
    assert_same(
        lambda s: logit_mse(s, teacher.to(s.dtype)),
        lambda s: reference(s, teacher),
        given.normal(*size, scale=scale),
    )


def test_is_twice_the_limit_of_soft_targets(given):
    student, teacher = (
        z - z.mean(dim=1, keepdim=True) for z in (given.normal(3, 10) for _ in "st")
    )
    limit = soft_kl(student, teacher, 1e3)
    torch.testing.assert_close(
        logit_mse(student, teacher), 2 * limit, rtol=1e-2, atol=0
    )


def test_trains_the_student_only(given, assert_trains):
    assert_trains(LogitMSE(), given.batch())


def test_weights_scale_their_own_term(given):
    batch = given.batch()
    one = LogitMSE(ce_weight=1, mse_weight=1).loss(batch)
    two = LogitMSE(ce_weight=2, mse_weight=5).loss(batch)
    torch.testing.assert_close(two["ce"], 2 * one["ce"])
    torch.testing.assert_close(two["mse"], 5 * one["mse"])


def test_bfloat16(given, assert_trains):
    assert_trains(LogitMSE(), given.batch(dtype=torch.bfloat16, scale=30))


def test_refuses_an_unknown_name():
    with pytest.raises(UserError, match="mse_weight"):
        LogitMSE.configured({"mse_wieght": 1})
