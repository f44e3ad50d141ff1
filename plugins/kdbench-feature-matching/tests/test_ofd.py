"""ofd: margins against integration, the partial distance, connectors, the sum."""

import dataclasses
import math

import pytest
import torch
from kdbench_feature_matching import ofd
from kdbench_feature_matching.ofd import FeatureOverhaul
from torch import nn

from kdbench import Tapped
from kdbench.testing import mutated

STUDENT = {"preact1": (2, 4, 4), "preact2": (4,)}
TEACHER = {"preact1": (3, 4, 4), "preact2": (5,)}
PATHS = {"preact1": "first", "preact2": "block.1:input"}


def pair(teacher=TEACHER, affine=True):
    """A student, and a teacher whose norms have means and spreads of either sign."""
    torch.manual_seed(0)
    first = nn.BatchNorm2d(3, affine=affine, dtype=torch.float64)
    block = nn.Sequential(nn.BatchNorm1d(5, dtype=torch.float64), nn.ReLU())
    model = nn.ModuleDict({"first": first, "block": block})
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    student = Tapped("student", STUDENT, nn.Identity())
    return student, Tapped("teacher", teacher, model, paths=PATHS)


def prepared(given, module=ofd, **options):
    adapters = module.FeatureOverhaul().adapters(*pair())
    return given.batch(
        student_shapes=STUDENT, teacher_shapes=TEACHER, adapters=adapters, **options
    )


def margins():
    """beta - |gamma| phi(z) / Phi(-z), z = beta / |gamma|, per norm and channel."""
    model = pair()[1].model
    found = []
    for norm in (model["first"], model["block"][0]):
        row = []
        for beta, gamma in zip(norm.bias.tolist(), norm.weight.tolist(), strict=True):
            z = beta / abs(gamma)
            density = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
            row.append(beta - abs(gamma) * density / (math.erfc(z / 2**0.5) / 2))
        found.append(row)
    return found


def reference(student, teacher, margin):
    total = 0.0
    for c in range(student.shape[1]):
        both = student[:, c].flatten(), teacher[:, c].flatten()
        for s, t in zip(*both, strict=True):
            target = max(t.item(), margin[c])
            if not s <= target <= 0:
                total = total + (s - target) ** 2
    return total / len(student)


def standardised(features, connector):
    """Mixed channels over their spread in the batch; a lone item's over the running."""
    mix, norm = connector
    mixed = torch.einsum("oc,bc...->bo...", mix.weight.flatten(1), features)
    axes = [axis for axis in range(mixed.ndim) if axis != 1]
    mean = mixed.mean(dim=axes, keepdim=True) * (len(mixed) > 1)
    spread = (mixed - mean).square().mean(dim=axes, keepdim=True)
    spread = spread if len(mixed) > 1 else 1.0
    return (mixed - mean) / (spread + norm.eps) ** 0.5


@pytest.fixture
def compare(given, assert_same):
    """Compares a module's feature loss with the reference."""

    def check(module, items=3):
        batch = prepared(given, module, items=items, dtype=torch.float64)
        adapters, targets = batch.adapters, batch.teacher.features

        def fast(*maps):
            def side(own, features):
                features = (x.to(maps[0].dtype) for x in features)
                named = dict(zip(STUDENT, features, strict=True))
                return (dataclasses.replace(own, features=named),)

            sides = dataclasses.replace(
                batch,
                students=side(batch.student, maps),
                teachers=side(batch.teacher, targets.values()),
                adapters=adapters.to(maps[0].dtype),
            )
            return module.FeatureOverhaul(ofd_weight=0.5).loss(sides)["partial"]

        def slow(*maps):
            connectors = adapters.double().connectors
            own = map(standardised, maps, connectors)
            first, last = map(reference, own, targets.values(), margins())
            return 0.5 * (first / 2 + last)

        assert_same(fast, slow, *batch.student.features.values())

    return check


@pytest.mark.parametrize("items", [1, 3])
def test_matches_the_definition(compare, items):
    compare(ofd, items)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(student > target) | (target > 0)", "target > 0"),
        ("(student > target) | (target > 0)", "student == student"),
        ("torch.maximum(teacher", "torch.minimum(teacher"),
        ("mean - width", "mean + width"),
        (".double().abs()", ".double()"),
        ("preacts.halving(losses)", "sum(losses)"),
    ],
)
def test_wrong_formulas_are_noticed(compare, old, new):
    with pytest.raises(AssertionError):
        compare(mutated(ofd, old, new))


@pytest.mark.parametrize("mean", [-3.0, -0.5, 0.0, 0.7, 2.5])
@pytest.mark.parametrize("deviation", [0.6, -1.5])
def test_margin_is_the_mean_below_zero(mean, deviation):
    x = torch.linspace(-30, 0, 600_001, dtype=torch.float64)
    density = torch.exp(-(((x - mean) / deviation) ** 2) / 2)
    wanted = torch.trapezoid(x * density, x) / torch.trapezoid(density, x)
    sides = torch.tensor([mean, deviation], dtype=torch.float64)
    torch.testing.assert_close(ofd.expected_negative(*sides), wanted, rtol=1e-7, atol=0)


def test_margins_of_channels_that_hardly_vary():
    mean = torch.tensor([2.0, -2.0, 0.0, 1e4, 30.0])
    deviation = torch.tensor([0.0, 0.0, 0.0, 1e-3, 1.0])
    found = ofd.expected_negative(mean, deviation)
    wanted = torch.tensor([0, -2.0, 0, 0, -1 / 30])  # far out, -deviation^2 / mean
    torch.testing.assert_close(found, wanted, rtol=3e-3, atol=1e-6)


def test_extreme_maps_stay_finite(given):
    student, teacher = (given.normal(2, 3, 2, 2, scale=1e3) for _ in range(2))
    margin = torch.tensor([-1.0, -0.1, 0.0])[:, None, None]
    value = ofd.partial_loss(student.float(), teacher.float(), margin)
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_student_and_connectors(given, assert_trains, dtype):
    batch = prepared(given, dtype=dtype)
    batch.adapters.float()
    assert_trains(FeatureOverhaul(), batch)
    kept = [name for name in batch.adapters.state_dict() if "margin" in name]
    assert kept == ["margin0", "margin1"]


def test_weights_scale_their_own_term(given):
    batch = prepared(given)
    batch.adapters.float()
    once, twice = (
        FeatureOverhaul(**weights).loss(batch)
        for weights in ({}, {"ce_weight": 3, "ofd_weight": 0.002})
    )
    torch.testing.assert_close(twice["partial"], 2 * once["partial"])
    ce = nn.CrossEntropyLoss()(batch.student.logits, batch.targets)
    torch.testing.assert_close((once["ce"], twice["ce"]), (ce, 3 * ce))
    assert FeatureOverhaul().ofd_weight == 1 / 1000


def test_refusals():
    supports = FeatureOverhaul().supports
    student, teacher = pair()
    assert supports(student, teacher) is None
    assert supports(student, None) == "there is no teacher"
    reason = "preact{} of teacher follows no batch norm of its channels"
    assert supports(*pair(affine=False)) == reason.format(1)
    assert supports(*pair({**TEACHER, "preact2": (6,)})) == reason.format(2)
