"""rkd: distances and angles from the paper; coinciding items stay finite."""

import kdbench_feature_matching.geometry as geometry
import kdbench_feature_matching.rkd as module
import pytest
import torch
from kdbench_feature_matching.goals import Goal
from kdbench_feature_matching.rkd import RelationalKD, relation_losses
from torch import nn

from kdbench.testing import mutated

STUDENT, TEACHER = {"pooled": (6,)}, {"pooled": (9,)}


def huber(x):
    return 0.5 * x**2 if abs(float(x.detach())) < 1 else abs(x) - 0.5


def length(x):
    return torch.sqrt(sum(value**2 for value in x))


def distance_reference(student, teacher):
    def distances(rows):
        n = range(len(rows))
        pairs = {(i, j): length(rows[i] - rows[j]) for i in n for j in n if i != j}
        mean = sum(pairs.values()) / len(pairs)
        return {pair: value / mean for pair, value in pairs.items()}

    s, t = distances(student), distances(teacher)
    return sum(huber(s[pair] - t[pair]) for pair in s) / len(student) ** 2


def angle_reference(student, teacher):
    def angle(rows, i, j, k):
        a, b = rows[i] - rows[j], rows[k] - rows[j]
        a, b = a / length(a), b / length(b)
        return sum(x * y for x, y in zip(a, b, strict=True))

    n = range(len(student))
    total = sum(
        huber(angle(student, i, j, k) - angle(teacher, i, j, k))
        for i in n
        for j in n
        for k in n
        if i != j and k != j
    )
    return total / len(student) ** 3


def compare(given, assert_same, losses, items=5, scale=1.0):
    teacher = given.normal(items, 4).detach()

    def fast(student):
        distance, angle = losses(student, Goal.of(teacher.to(student.dtype)))
        return 25 * distance + 50 * angle

    def slow(student):
        distance = distance_reference(student, teacher)
        return 25 * distance + 50 * angle_reference(student, teacher)

    # A few far-off items, so that both branches of the Huber loss are taken.
    student = given.normal(items, 3, scale=scale).detach()
    student[0] *= 5
    assert_same(fast, slow, student.requires_grad_())


@pytest.mark.parametrize("items", [2, 3, 5])
@pytest.mark.parametrize("scale", [0.1, 1, 1e4])
def test_matches_the_definition(given, assert_same, items, scale):
    compare(given, assert_same, relation_losses, items, scale)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(distances, wanted_distances)", "(distances, -wanted_distances)"),
        ("return distance, F.smooth_l1_loss", "return distance, F.mse_loss"),
    ],
)
def test_mistakes_are_noticed(given, assert_same, old, new):
    wrong = mutated(module, old, new)
    with pytest.raises(AssertionError):
        compare(given, assert_same, wrong.relation_losses)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("distance / torch.where", "distance * torch.where"),
        ("distance.sum() / apart.sum().clamp(min=1)", "distance.mean()"),
        ("vectors[:, None]", "vectors[:, None] * 2"),
        ("unit(difference, dim=2)", "unit(difference, dim=1)"),
    ],
)
def test_wrong_relations_are_noticed(given, assert_same, monkeypatch, old, new):
    wrong = mutated(geometry, old, new)
    monkeypatch.setattr(module, "relations", wrong.relations)
    with pytest.raises(AssertionError):
        compare(given, assert_same, relation_losses)


@pytest.mark.parametrize("items", [1, 2, 4])
def test_coinciding_items_stay_finite(given, items):
    student = torch.ones(items, 3, requires_grad=True)
    teacher = Goal.of(given.normal(items, 4).float())
    losses = relation_losses(student, teacher)
    (gradient,) = torch.autograd.grad(sum(losses), student)
    assert all(torch.isfinite(x) for x in losses)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() == 0


def test_one_coinciding_pair_leaves_the_rest_learning(given):
    student = given.normal(4, 3).detach().float()
    student[1] = student[0]
    student.requires_grad_()
    losses = relation_losses(student, Goal.of(given.normal(4, 5).float()))
    (gradient,) = torch.autograd.grad(sum(losses), student)
    assert 0 < gradient.abs().max() < 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_only(given, assert_trains, dtype):
    batch = given.batch(student_shapes=STUDENT, teacher_shapes=TEACHER, dtype=dtype)
    assert_trains(RelationalKD(), batch)


def test_a_batch_of_one_has_no_relations(given):
    batch = given.batch(items=1, student_shapes=STUDENT, teacher_shapes=TEACHER)
    terms = RelationalKD().loss(batch)
    assert terms["distance"] == 0
    assert terms["angle"] == 0
    assert torch.isfinite(terms["ce"])


def test_weights_scale_their_own_term(given):
    batch = given.batch(student_shapes=STUDENT, teacher_shapes=TEACHER)
    pooled = batch.student.features["pooled"], Goal(batch.teacher, "pooled")
    distance, angle = relation_losses(*pooled)
    terms = RelationalKD(ce_weight=2).loss(batch)
    torch.testing.assert_close(terms["distance"], 25 * distance)
    torch.testing.assert_close(terms["angle"], 50 * angle)
    ce = nn.CrossEntropyLoss()(batch.student.logits, batch.targets)
    torch.testing.assert_close(terms["ce"], 2 * ce)
