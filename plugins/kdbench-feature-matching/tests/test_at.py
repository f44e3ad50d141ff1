"""at: attention maps from the paper, summed over matched stages."""

import kdbench_feature_matching.at as module
import pytest
import torch
from kdbench_feature_matching.at import AttentionTransfer, attention_loss
from kdbench_feature_matching.goals import Goal
from torch import nn

from kdbench import Tapped, UserError
from kdbench.testing import mutated

STAGES = {"stage1": (3, 4, 4), "stage2": (5, 2, 2)}
WIDER = {"stage1": (6, 4, 4), "stage2": (7, 2, 2)}


def tapped(name, shapes):
    return Tapped(name, {**shapes, "logits": (5,)}, nn.Identity())


def reference(student, teacher, power):
    def attention(maps):
        channels, height, width = maps.shape
        q = [
            sum(abs(maps[c, i, j]) ** power for c in range(channels)) / channels
            for i in range(height)
            for j in range(width)
        ]
        length = torch.sqrt(sum(x * x for x in q))
        return [x / length for x in q]

    each = [
        (a - b) ** 2
        for s, t in zip(student, teacher, strict=True)
        for a, b in zip(attention(s), attention(t), strict=True)
    ]
    return sum(each) / len(each)


def compare(given, assert_same, loss, items=3, power=2.0):
    teacher = given.normal(items, 5, 3, 2).detach()
    assert_same(
        lambda s: loss(s, Goal.of(teacher.to(s.dtype)), power),
        lambda s: reference(s, teacher, power),
        given.normal(items, 4, 3, 2),
    )


@pytest.mark.parametrize("items", [1, 3])
@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
def test_matches_the_definition(given, assert_same, items, power):
    compare(given, assert_same, attention_loss, items, power)


@pytest.mark.parametrize(
    ("old", "new", "power"),
    [
        ("wide.abs().pow(power).sum", "wide.abs().pow(power).amax", 3),
        ("unit(shrink(summed / wide.shape[1], size).flatten(1), dim=1)", "summed", 2),
        (".abs().pow(power)", ".abs()", 3),
        ("flatten(1), dim=1", "flatten(1), dim=0", 2),
        ("sum_of_squares(wide, dim=1)", "wide.sum(dim=1, keepdim=True)", 2),
    ],
)
def test_mistakes_are_noticed(given, assert_same, old, new, power):
    wrong = mutated(module, old, new)
    with pytest.raises(AssertionError):
        compare(given, assert_same, wrong.attention_loss, power=power)


def test_a_large_map_is_pooled_to_the_smaller(given):
    small, large = given.normal(2, 3, 2, 2), given.normal(2, 4, 4, 4)
    attention = large.square().mean(1)
    pooled = attention.unfold(1, 2, 2).unfold(2, 2, 2).mean(dim=(3, 4))
    # Channel mean of squares of this one-channel map is `pooled` itself.
    expected = attention_loss(small, Goal.of(pooled.sqrt()[:, None]), 2)
    torch.testing.assert_close(attention_loss(small, Goal.of(large), 2), expected)
    torch.testing.assert_close(attention_loss(large, Goal.of(small), 2), expected)


def test_silent_maps_and_extreme_values_stay_finite(given):
    for student in (torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 1e4)):
        student.requires_grad_()
        for power in (1, 2):
            teacher = Goal.of(given.normal(2, 3, 4, 4).float())
            value = attention_loss(student, teacher, power)
            (gradient,) = torch.autograd.grad(value, student)
            assert torch.isfinite(value)
            assert torch.isfinite(gradient).all()
            assert gradient.abs().max() < 1


@pytest.mark.parametrize("items", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_only(given, assert_trains, items, dtype):
    batch = given.batch(
        items=items, student_shapes=STAGES, teacher_shapes=WIDER, dtype=dtype
    )
    assert_trains(AttentionTransfer(), batch)


def test_stages_add_up_with_the_weight(given):
    batch = given.batch(student_shapes=STAGES, teacher_shapes=WIDER)
    by_stage = [
        attention_loss(batch.student.features[k], Goal(batch.teacher, k), 2)
        for k in STAGES
    ]
    terms = AttentionTransfer(ce_weight=0.5).loss(batch)
    torch.testing.assert_close(terms["attention"], 1000 * sum(by_stage))
    ce = nn.CrossEntropyLoss()(batch.student.logits, batch.targets)
    torch.testing.assert_close(terms["ce"], 0.5 * ce)


def test_longer_teachers_match_by_size(given):
    teacher = {"stage1": (2, 4, 4), "stage2": (2, 4, 4), "stage3": (2, 2, 2)}
    batch = given.batch(student_shapes=STAGES, teacher_shapes=teacher)
    s, t = batch.student.features, batch.teacher
    expected = attention_loss(s["stage1"], Goal(t, "stage2"), 2)
    expected = expected + attention_loss(s["stage2"], Goal(t, "stage3"), 2)
    value = AttentionTransfer(at_weight=1).loss(batch)["attention"]
    torch.testing.assert_close(value, expected)


def test_unsupported_pairs_say_why():
    supports = AttentionTransfer().supports
    cnn = tapped("cnn", STAGES)
    assert supports(cnn, tapped("wide", WIDER)) is None
    mlp = tapped("mlp", {"stage1": (64,), "stage2": (32,)})
    assert supports(mlp, cnn) == "stage1 of mlp is no map (C, H, W): (64,)"


def test_refuses_a_power_below_one():
    with pytest.raises(UserError, match="power must be >= 1"):
        AttentionTransfer.configured({"power": 0.5})
