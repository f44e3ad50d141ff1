"""fitnet: equation 3, the seed articles' worked example, the regressor's shapes."""

import pytest
import torch
import torch.nn.functional as F
from kdbench_feature_matching.fitnet import FitNet, hint_loss
from torch import nn

from kdbench import Tapped, UserError


def tapped(name="net", **shapes):
    return Tapped(name, {**shapes, "logits": (5,)}, nn.Identity())


def prepared(given, student, teacher, **options):
    sides = {"stage2": student}, {"stage2": teacher}
    torch.manual_seed(0)
    adapters = FitNet().adapters(tapped(**sides[0]), tapped(**sides[1]))
    return given.batch(
        student_shapes=sides[0], teacher_shapes=sides[1], adapters=adapters, **options
    )


def reference(student, teacher, mean):
    pairs = zip(student.flatten(), teacher.flatten(), strict=True)
    total = sum((t - s) ** 2 for s, t in pairs)
    return total / student.numel() if mean else total / 2


@pytest.mark.parametrize("shape", [(1, 2), (3, 4), (2, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "half_sum"])
def test_matches_the_definition(given, assert_same, shape, reduction):
    teacher = given.normal(*shape).detach()
    assert_same(
        lambda s: hint_loss(s, teacher.to(s.dtype), reduction),
        lambda s: reference(s, teacher, reduction == "mean"),
        given.normal(*shape),
    )


def test_worked_example_of_the_seed_articles():
    """Five samples: features 0.1 apart, true class at 0.8: 0.075 + 1.11572."""
    student = torch.arange(1.0, 16.0, dtype=torch.float64).reshape(5, 3)
    features = hint_loss(student, student + 0.1, reduction="half_sum")
    targets = torch.tensor([0, 1, 2, 0, 1])
    probabilities = torch.full((5, 3), 0.1, dtype=torch.float64)
    probabilities[torch.arange(5), targets] = 0.8
    labels = F.cross_entropy(probabilities.log(), targets, reduction="sum")
    assert features.item() == pytest.approx(0.075, abs=1e-12)
    assert labels.item() == pytest.approx(1.11572, abs=5e-6)
    assert (features + labels).item() == pytest.approx(1.19072, abs=5e-6)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ((6,), (6,)),
        ((3,), (7,)),
        ((2, 4, 4), (3, 4, 4)),
        ((2, 8, 8), (3, 4, 4)),
        ((2, 4, 4), (3, 8, 8)),
        ((2, 7, 4), (3, 4, 7)),
    ],
    ids=str,
)
def test_trains_student_and_regressor_for_all_shapes(
    given, assert_trains, student, teacher
):
    assert FitNet().supports(tapped(stage2=student), tapped(stage2=teacher)) is None
    for items in (1, 4):
        assert_trains(FitNet(), prepared(given, student, teacher, items=items))


def test_loss_by_hand(given):
    """Student maps are pooled, then projected; the weight is on the mean square."""
    batch = prepared(given, (2, 4, 4), (3, 2, 2))
    project = batch.adapters.project
    maps = batch.student.features["stage2"]
    pooled = maps.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    guess = torch.einsum("oc,bchw->bohw", project.weight[:, :, 0, 0], pooled)
    guess = guess + project.bias[:, None, None]
    wanted = (guess - batch.teacher.features["stage2"]).square().mean()
    terms = FitNet(ce_weight=3).loss(batch)
    torch.testing.assert_close(terms["hint"], 100 * wanted)
    ce = F.cross_entropy(batch.student.logits, batch.targets)
    torch.testing.assert_close(terms["ce"], 3 * ce)
    lighter = FitNet(hint_weight=7).loss(batch)
    torch.testing.assert_close(lighter["hint"], 7 * wanted)


@pytest.mark.parametrize("shape", [(6,), (2, 4, 4)], ids=str)
def test_bfloat16(given, assert_trains, shape):
    batch = prepared(given, shape, shape, dtype=torch.bfloat16)
    assert_trains(FitNet(), batch)


def test_taps_follow_the_hint_stage():
    assert FitNet().taps == ("stage2",)
    assert FitNet.configured({"hint_stage": 3}).taps == ("stage3",)


def test_unsupported_pairs_say_why():
    vector, maps = tapped("mlp", stage2=(8,)), tapped("cnn", stage2=(8, 4, 4))
    for pair in ((vector, maps), (maps, vector)):
        reason = FitNet().supports(*pair)
        assert "mlp has (8,)" in reason
        assert "cnn has (8, 4, 4)" in reason
    short = tapped("short", stage1=(8,))
    assert FitNet().supports(vector, short) == "short has no stage2; it has stage1"
    assert FitNet().supports(short, vector) == "short has no stage2; it has stage1"
    assert FitNet().supports(maps, None) == "there is no teacher"


def test_refuses_a_stage_below_one():
    with pytest.raises(UserError, match="hint_stage must be >= 1"):
        FitNet.configured({"hint_stage": 0})
