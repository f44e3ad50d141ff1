"""nst: the direct sums over pairs of channels, from the paper."""

import kdbench_feature_matching.nst as module
import pytest
import torch
from kdbench_feature_matching.goals import Goal
from kdbench_feature_matching.nst import NeuronSelectivity, selectivity_loss
from torch import nn

from kdbench import Tapped
from kdbench.testing import mutated

STUDENT = {"stage1": (3, 4, 4), "stage2": (5, 2, 2)}
TEACHER = {"stage1": (6, 4, 4), "stage2": (7, 2, 2)}


def reference(student, teacher):
    def patterns(maps):
        rows = [channel.flatten() for channel in maps]
        return [row / torch.sqrt(sum(x * x for x in row)) for row in rows]

    def kernel(a, b):
        total = sum(
            sum(x * y for x, y in zip(p, q, strict=True)) ** 2 for p in a for q in b
        )
        return total / (len(a) * len(b))

    total = 0
    for maps, wanted in zip(student, teacher, strict=True):
        s, t = patterns(maps), patterns(wanted)
        total = total + kernel(s, s) - 2 * kernel(s, t) + kernel(t, t)
    return total / len(student)


def compare(given, assert_same, loss, items=2, channels=(4, 5), side=3):
    teacher = given.normal(items, channels[1], side, 2).detach()
    assert_same(
        lambda s: loss(s, Goal.of(teacher.to(s.dtype))),
        lambda s: reference(s, teacher),
        given.normal(items, channels[0], side, 2),
    )


@pytest.mark.parametrize("items", [1, 3])
@pytest.mark.parametrize("channels", [(2, 3), (1, 1), (8, 3), (4, 9)], ids=str)
@pytest.mark.parametrize("side", [1, 4])
def test_matches_the_definition(given, assert_same, items, channels, side):
    """Few positions and many channels, and the other way about: both forms."""
    compare(given, assert_same, selectivity_loss, items, channels, side)


@pytest.mark.parametrize(
    ("old", "new", "channels"),
    [
        ("- teacher.once(positions", "+ teacher.once(positions", (8, 9)),
        (".mT) / maps.shape[1]", ".mT)", (8, 9)),
        ("- 2 * crossed", "- crossed", (2, 3)),
        ("per_length.mT).square().mean()", "per_length.mT).mean()", (2, 3)),
        ("gram(x).square().mean()", "gram(x).mean()", (2, 3)),
        ("per_length * per_length.mT", "per_length", (2, 3)),
        ("t @ s.mT * per_length.mT", "t @ s.mT", (2, 3)),
    ],
)
def test_mistakes_are_noticed(given, assert_same, old, new, channels):
    wrong = mutated(module, old, new)
    with pytest.raises(AssertionError):
        compare(given, assert_same, wrong.selectivity_loss, channels=channels)


def test_equal_selectivity_costs_nothing_whatever_the_scale_and_order(given):
    maps = given.normal(2, 6, 4, 4)
    other = 3 * maps[:, torch.randperm(6, generator=given.generator)]
    assert selectivity_loss(maps, Goal.of(other)).item() == pytest.approx(0, abs=1e-12)
    assert selectivity_loss(maps, Goal.of(given.normal(2, 4, 4, 4))) > 0


def test_a_large_map_is_pooled_to_the_smaller(given):
    small, large = given.normal(2, 3, 2, 2), given.normal(2, 4, 4, 4)
    pooled = large.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    expected = selectivity_loss(small, Goal.of(pooled))
    torch.testing.assert_close(selectivity_loss(small, Goal.of(large)), expected)
    torch.testing.assert_close(selectivity_loss(large, Goal.of(small)), expected)


@pytest.mark.parametrize("value", [0.0, 1e4])
def test_silent_maps_and_extreme_values_stay_finite(given, value):
    student = torch.full((2, 3, 4, 4), value, requires_grad=True)
    loss = selectivity_loss(student, Goal.of(given.normal(2, 3, 4, 4).float()))
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() < 1


@pytest.mark.parametrize("items", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_only(given, assert_trains, items, dtype):
    batch = given.batch(
        items=items, student_shapes=STUDENT, teacher_shapes=TEACHER, dtype=dtype
    )
    assert_trains(NeuronSelectivity(), batch)


def test_stages_add_up_with_the_weight(given):
    batch = given.batch(student_shapes=STUDENT, teacher_shapes=TEACHER)
    s, t = batch.student.features, batch.teacher
    terms = NeuronSelectivity(ce_weight=0.5).loss(batch)
    expected = 50 * sum(selectivity_loss(s[k], Goal(t, k)) for k in STUDENT)
    torch.testing.assert_close(terms["selectivity"], expected)
    ce = nn.CrossEntropyLoss()(batch.student.logits, batch.targets)
    torch.testing.assert_close(terms["ce"], 0.5 * ce)


def test_vectors_are_refused():
    cnn = Tapped("cnn", TEACHER, nn.Identity())
    mlp = Tapped("mlp", {"stage1": (8,), "stage2": (8,)}, nn.Identity())
    supports = NeuronSelectivity().supports
    assert supports(Tapped("thin", STUDENT, nn.Identity()), cnn) is None
    assert supports(mlp, cnn) == "stage1 of mlp is no map (C, H, W): (8,)"
