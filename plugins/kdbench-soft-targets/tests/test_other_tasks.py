"""Regression forms against sums by hand, and targets of students without gradients."""

import pytest
import torch
from kdbench_soft_targets.kd import SoftTargets
from kdbench_soft_targets.logit_mse import LogitMSE

from kdbench import Task

NUMBERS = Task(kind="regression", outputs=3)


def mean_square(a, b):
    pairs = zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)
    return sum((x - y) ** 2 for x, y in pairs) / a.numel()


@pytest.mark.parametrize("cls", [SoftTargets, LogitMSE])
@pytest.mark.parametrize("items", [1, 4])
def test_numbers_are_matched_by_squared_error(given, assert_trains, cls, items):
    batch = given.batch(items=items, task=NUMBERS)
    first, second = cls(ce_weight=0.3).loss(batch).items()
    student, teacher = batch.student.logits, batch.teacher.logits
    assert first[1].item() == pytest.approx(0.3 * mean_square(student, batch.targets))
    assert second[1].item() == pytest.approx(0.9 * mean_square(student, teacher))
    assert_trains(cls(), batch)


def test_a_mixed_target_by_hand(given):
    batch = given.batch(items=2, classes=3)
    target = SoftTargets(temperature=2, ce_weight=1, kd_weight=3).target(batch)
    for row, z, label in zip(target, batch.teacher.logits, batch.targets, strict=True):
        weights = [torch.exp(v / 2).item() for v in z]
        for c, value in enumerate(row.tolist()):
            soft = weights[c] / sum(weights)
            assert value == pytest.approx((float(c == label) + 3 * soft) / 4, rel=1e-5)


def test_targets_are_distributions_also_at_extreme_logits(given):
    batch = given.batch(items=5, classes=4, scale=1e4)
    for cls in (SoftTargets, LogitMSE):
        target = cls().target(batch)
        assert target.sum(1).tolist() == pytest.approx([1.0] * 5)
        assert (target >= 0).all()


def test_a_target_of_numbers_is_the_weighted_mean(given):
    batch = given.batch(task=NUMBERS)
    target = SoftTargets(ce_weight=1, kd_weight=1).target(batch)
    torch.testing.assert_close(target, (batch.targets + batch.teacher.logits) / 2)


def test_nothing_to_learn_is_refused(given):
    with pytest.raises(ValueError, match="nothing to learn"):
        SoftTargets(ce_weight=0, kd_weight=0).target(given.batch())
