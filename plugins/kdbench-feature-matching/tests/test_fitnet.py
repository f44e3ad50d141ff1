"""fitnet: equation 3, the seed articles' worked example, the regressor's shapes."""

import dataclasses

import kdbench_feature_matching.fitnet as module
import kdbench_feature_matching.regressor as network
import pytest
import torch
import torch.nn.functional as F
from kdbench_feature_matching.fitnet import FitNet, hint_loss
from torch import nn

from kdbench import Tapped, UserError
from kdbench.testing import mutated


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
@pytest.mark.parametrize("half_sum", [False, True])
def test_matches_the_definition(given, assert_same, shape, half_sum):
    teacher = given.normal(*shape).detach()
    assert_same(
        lambda s: hint_loss(s, teacher.to(s.dtype), half_sum),
        lambda s: reference(s, teacher, not half_sum),
        given.normal(*shape),
    )


def test_worked_example_of_the_seed_articles():
    """Five samples: features 0.1 apart, true class at 0.8: 0.075 + 1.11572."""
    student = torch.arange(1.0, 16.0, dtype=torch.float64).reshape(5, 3)
    features = hint_loss(student, student + 0.1, half_sum=True)
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
    assert_trains(FitNet(), prepared(given, student, teacher, items=4))
    lone = FitNet().loss(prepared(given, student, teacher, items=1))
    assert all(torch.isfinite(term) for term in lone.values())


def regressed(regressor, x):
    """The regressor from its weights: projection, batch norm, ReLU."""
    x = torch.einsum("oc,bc...->bo...", regressor.project.weight.flatten(1), x)
    rest = (-1, *[1] * (x.ndim - 2))
    x = x + regressor.project.bias.reshape(rest)
    axes = [axis for axis in range(x.ndim) if axis != 1]
    mean = x.mean(dim=axes, keepdim=True)
    x = (x - mean) / ((x - mean).square().mean(dim=axes, keepdim=True) + 1e-5).sqrt()
    norm = regressor.norm
    return (x * norm.weight.reshape(rest) + norm.bias.reshape(rest)).clamp(min=0)


def compare_by_hand(given, source, student, teacher, layers=network):
    torch.manual_seed(0)
    batch = prepared(given, student, teacher)
    regressor = layers.Regressor(student, teacher)
    torch.nn.init.normal_(regressor.norm.bias)
    batch = dataclasses.replace(batch, adapters=regressor)
    x, wanted = batch.student.features["stage2"], batch.teacher.features["stage2"]
    if len(student) == 3:
        x = x.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    expected = reference(regressed(regressor, x), wanted, mean=True)
    terms = source.FitNet(ce_weight=3).loss(batch)
    torch.testing.assert_close(terms["hint"], 100 * expected)
    ce = F.cross_entropy(batch.student.logits, batch.targets)
    torch.testing.assert_close(terms["ce"], 3 * ce)
    parts = [*batch.student.features.values(), *regressor.parameters()]
    got = torch.autograd.grad(terms["hint"], parts)
    for a, b in zip(got, torch.autograd.grad(100 * expected, parts), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shapes", [((2, 4, 4), (3, 2, 2)), ((6,), (4,))], ids=str)
def test_loss_by_hand_from_the_adapters_weights(given, shapes):
    """Student maps are pooled, projected, normalised; the weight is on the mean."""
    compare_by_hand(given, module, *shapes)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self.hint_weight * hint", "hint"),
        ("squares / gap.numel()", "squares / len(gap)"),
    ],
)
def test_mistakes_are_noticed(given, old, new):
    with pytest.raises(AssertionError):
        compare_by_hand(given, mutated(module, old, new), (2, 4, 4), (3, 2, 2))


@pytest.mark.parametrize("wrong", ["self.norm(projected)", "F.relu_(projected)"])
def test_a_wrong_regressor_is_noticed(given, wrong):
    layers = mutated(network, "F.relu_(self.norm(projected))", wrong)
    with pytest.raises(AssertionError):
        compare_by_hand(given, module, (2, 4, 4), (3, 2, 2), layers)


@pytest.mark.parametrize("shape", [(6,), (2, 1, 1)], ids=str)
def test_one_value_per_channel_is_normalised_by_the_running_statistics(given, shape):
    batch = prepared(given, shape, shape, items=1)
    regressor = batch.adapters
    regressor.norm.running_mean.fill_(0.5)
    before = regressor.norm.running_mean.clone(), regressor.norm.running_var.clone()
    x = batch.student.features["stage2"]
    expected = ((regressor.project(x) - 0.5) / (1 + 1e-5) ** 0.5).clamp(min=0)
    torch.testing.assert_close(regressor(x), expected)
    assert torch.equal(regressor.norm.running_mean, before[0])
    assert torch.equal(regressor.norm.running_var, before[1])
    regressor(torch.cat([x, 2 * x]))
    assert not torch.equal(regressor.norm.running_mean, before[0])


def test_a_student_survives_the_default_weight():
    """At the field's learning rate the loss falls and the units live."""
    torch.manual_seed(0)
    student = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    adapters = network.Regressor((8, 8, 8), (8, 8, 8))
    parts = [*student.parameters(), *adapters.parameters()]
    optimiser = torch.optim.SGD(parts, lr=0.05, momentum=0.9, weight_decay=5e-4)
    inputs = torch.randn(16, 3, 8, 8)
    teacher = 3 * torch.nn.Conv2d(3, 8, 3, padding=1)(inputs).relu().detach()
    losses = []
    for _ in range(60):
        features = student(inputs)
        losses.append(100 * hint_loss(adapters(features), teacher))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < losses[0] / 2
    assert (features > 0).float().mean() > 0.1


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
        assert "must both be maps (C, H, W) or both vectors (D,)" in reason
    assert FitNet().supports(maps, None) == "there is no teacher"


def test_refuses_a_stage_below_one():
    with pytest.raises(UserError, match="hint_stage must be >= 1"):
        FitNet.configured({"hint_stage": 0})
