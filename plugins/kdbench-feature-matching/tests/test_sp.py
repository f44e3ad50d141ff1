"""sp: row-normalised Gram matrices of the last stage, from the paper."""

import kdbench_feature_matching.sp as module
import pytest
import torch
from kdbench_feature_matching.goals import Goal
from kdbench_feature_matching.sp import SimilarityPreserving, similarity_loss
from torch import nn

from kdbench import Tapped
from kdbench.testing import mutated

STUDENT = {"stage1": (3, 4, 4), "stage2": (5, 2, 2)}
TEACHER = {"stage1": (6, 4, 4), "stage2": (6, 4, 4), "stage3": (7, 2, 2)}


def reference(student, teacher):
    def similarity(feature):
        rows = [list(x.flatten()) for x in feature]
        gram = [
            [sum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows
        ]
        lengths = [torch.sqrt(sum(x * x for x in row)) for row in gram]
        return [[x / n for x in row] for row, n in zip(gram, lengths, strict=True)]

    items = len(student)
    s, t = similarity(student), similarity(teacher)
    total = sum((s[i][j] - t[i][j]) ** 2 for i in range(items) for j in range(items))
    return total / items**2


def compare(given, assert_same, loss, items=4, shape=(3, 2, 2)):
    teacher = given.normal(items, 6).detach()
    assert_same(
        lambda s: loss(s, Goal.of(teacher.to(s.dtype))),
        lambda s: reference(s, teacher),
        given.normal(items, *shape),
    )


@pytest.mark.parametrize("items", [2, 5])
@pytest.mark.parametrize("shape", [(4,), (3, 2, 2)], ids=str)
def test_matches_the_definition(given, assert_same, items, shape):
    compare(given, assert_same, similarity_loss, items, shape)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("unit(gram(as_rows(feature)), dim=1)", "gram(as_rows(feature))"),
        ("gram(as_rows(feature))", "gram(as_rows(feature)[:, :2])"),
        ("teacher.once(similarity)", "-teacher.once(similarity)"),
    ],
)
def test_mistakes_are_noticed(given, assert_same, old, new):
    wrong = mutated(module, old, new)
    with pytest.raises(AssertionError):
        compare(given, assert_same, wrong.similarity_loss)


def test_channels_last_does_not_matter(given):
    student, teacher = given.normal(4, 3, 2, 2), Goal.of(given.normal(4, 6))
    other = student.contiguous(memory_format=torch.channels_last)
    value = similarity_loss(student, teacher)
    torch.testing.assert_close(similarity_loss(other, teacher), value)


def test_a_batch_of_one_agrees_with_itself(given):
    student = given.normal(1, 4)
    value = similarity_loss(student, Goal.of(given.normal(1, 6)))
    (gradient,) = torch.autograd.grad(value, student)
    assert value.item() == pytest.approx(0, abs=1e-20)
    assert gradient.abs().max() < 1e-12


def test_silent_items_and_extreme_values_stay_finite(given):
    student = given.normal(4, 3, scale=1e4).detach().float()
    student[1] = 0
    student.requires_grad_()
    value = similarity_loss(student, Goal.of(given.normal(4, 5).float()))
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_last_stage_only(given, assert_trains, dtype):
    batch = given.batch(student_shapes=STUDENT, teacher_shapes=TEACHER, dtype=dtype)
    logits, first, last = given.students
    assert_trains(SimilarityPreserving(), batch, learns=(logits, last))
    assert first.grad is None


def test_weights_scale_their_own_term(given):
    batch = given.batch(student_shapes=STUDENT, teacher_shapes=TEACHER)
    terms = SimilarityPreserving(ce_weight=2).loss(batch)
    last = batch.student.features["stage2"], Goal(batch.teacher, "stage3")
    torch.testing.assert_close(terms["similarity"], 3000 * similarity_loss(*last))
    ce = nn.CrossEntropyLoss()(batch.student.logits, batch.targets)
    torch.testing.assert_close(terms["ce"], 2 * ce)


def test_any_stages_will_do_but_some_there_must_be():
    supports = SimilarityPreserving().supports
    cnn = Tapped("cnn", STUDENT, nn.Identity())
    mlp = Tapped("mlp", {"stage1": (8,)}, nn.Identity())
    bare = Tapped("bare", {"logits": (5,)}, nn.Identity())
    assert supports(cnn, mlp) is None
    assert supports(cnn, bare) == "bare has no stages"
    assert supports(cnn, None) == "there is no teacher"
