"""Regression forms against sums by hand; an ensemble as a target."""

import pytest
import torch
from kdbench_mutual_learning.dml import MutualLearning, mutual_loss
from kdbench_mutual_learning.ensemble_kd import EnsembleKD
from kdbench_mutual_learning.split_transfer import gaps, label_losses

from kdbench import Task

NUMBERS = Task(kind="regression", outputs=3)


def mean_square(a, b):
    pairs = zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)
    return sum((x - y) ** 2 for x, y in pairs) / a.numel()


@pytest.mark.parametrize("peers", [2, 3])
def test_peers_match_each_others_numbers(given, assert_trains, peers):
    batch = given.batch(task=NUMBERS, students=peers, teachers=0)
    own = [student.logits for student in batch.students]
    terms = MutualLearning(students=peers).loss(batch)
    ce = sum(mean_square(peer, batch.targets) for peer in own)
    between = sum(mean_square(a, b) for a in own for b in own if a is not b)
    assert terms["ce"].item() == pytest.approx(ce)
    assert terms["mutual"].item() == pytest.approx(between / (peers - 1))
    assert_trains(MutualLearning(students=peers), batch)


def test_the_other_peer_is_a_constant(given):
    a, b = given.normal(4, 3), given.normal(4, 3)
    (gradient,) = torch.autograd.grad(mutual_loss([a, b], logits=False), a)
    torch.testing.assert_close(gradient, 2 * (a - b).detach() / 12)


def test_an_ensemble_of_numbers_is_their_mean(given, assert_trains):
    batch = given.batch(task=NUMBERS, teachers=3)
    strategy = EnsembleKD(ce_weight=0.25, kd_weight=0.5)
    mean = sum(teacher.logits for teacher in batch.teachers) / 3
    terms = strategy.loss(batch)
    expected = 0.5 * mean_square(batch.student.logits, mean)
    assert terms["kd"].item() == pytest.approx(expected, rel=1e-5)
    expected = 0.25 * mean_square(batch.student.logits, batch.targets)
    assert terms["ce"].item() == pytest.approx(expected, rel=1e-5)
    target = strategy.target(batch)
    torch.testing.assert_close(target, (batch.targets + 2 * mean) / 3)
    assert_trains(strategy, batch)


def test_an_ensembles_distribution_as_a_target(given):
    batch = given.batch(items=3, classes=4, teachers=2)
    target = EnsembleKD(teachers=2, temperature=2, ce_weight=0, kd_weight=1).target(
        batch
    )
    soft = [(teacher.logits / 2).softmax(1) for teacher in batch.teachers]
    torch.testing.assert_close(target, (soft[0] + soft[1]) / 2)


def test_sub_models_agree_on_numbers_not_on_their_softmax(given):
    outputs = [given.normal(5, 1), given.normal(5, 1)]
    gap = gaps(outputs, probabilities=False)
    torch.testing.assert_close(gap[0], outputs[0] - outputs[1])
    assert gaps(outputs).abs().max() == 0  # a softmax of one number says nothing
    targets = torch.zeros(5, 1)
    task = Task(kind="regression", outputs=1)
    total = sum(mean_square(one, targets) for one in outputs)
    assert label_losses(task, outputs, targets).item() == pytest.approx(total)
