"""ab: the hinge of the paper, connectors from their own weights, then labels alone."""

import dataclasses

import pytest
import torch
from kdbench_feature_matching import ab
from kdbench_feature_matching.ab import ActivationBoundaries
from torch import nn

from kdbench import Outputs, Phase, Tapped, UserError
from kdbench.testing import mutated

STUDENT = {"preact1": (2, 4, 4), "preact2": (3, 2, 2), "preact3": (4,)}
TEACHER = {"preact1": (3, 4, 4), "preact2": (3, 2, 2), "preact3": (5,)}


def tapped(shapes, name="net"):
    return Tapped(name, {**shapes, "logits": (5,)}, nn.Identity())


def prepared(given, **options):
    torch.manual_seed(0)
    adapters = ActivationBoundaries().adapters(tapped(STUDENT), tapped(TEACHER))
    return dataclasses.replace(
        given.batch(student_shapes=STUDENT, teacher_shapes=TEACHER, **options),
        adapters=adapters,
        phase="ab",
    )


def reference(student, teacher, margin=1.0):
    """Equation with the indicator rho: mean over the batch of the summed squares."""
    total = 0.0
    for s, t in zip(student.flatten(), teacher.flatten(), strict=True):
        rho = 1.0 if t > 0 else 0.0
        above, below = (margin - s).clamp(min=0), (margin + s).clamp(min=0)
        total = total + (rho * above + (1 - rho) * below) ** 2
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
    """Compares a module's whole loss with the reference, at every stage."""
    names = list(STUDENT)

    def check(module, items=3):
        batch = prepared(given, items=items, dtype=torch.float64, scale=2.0)
        strategy = module.ActivationBoundaries(ab_weight=0.5)

        def fast(*maps):
            kind = maps[0].dtype
            other = {k: v.to(kind) for k, v in batch.teacher.features.items()}
            sides = {
                "students": (Outputs(maps[0], dict(zip(names, maps, strict=True))),),
                "teachers": (Outputs(maps[0], other),),
                "adapters": batch.adapters.to(kind),
            }
            return strategy.loss(dataclasses.replace(batch, **sides))["boundary"]

        def slow(*maps):
            connectors = batch.adapters.double().connectors
            losses = [
                reference(standardised(x, connect), batch.teacher.features[name])
                for x, connect, name in zip(maps, connectors, names, strict=True)
            ]
            return 0.5 * (losses[0] / 4 + losses[1] / 2 + losses[2])

        assert_same(fast, slow, *batch.student.features.values())

    return check


@pytest.mark.parametrize("items", [1, 3])
def test_matches_the_definition(compare, items):
    compare(ab, items)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("teacher.detach() > 0", "teacher.detach() < 0"),
        ("(margin - inside)", "(-inside)"),
        (".square().sum()", ".sum()"),
        (" / len(student)", ""),
        ("halving(losses)}", "sum(losses)}"),
    ],
)
def test_wrong_formulas_are_noticed(compare, old, new):
    with pytest.raises(AssertionError):
        compare(mutated(ab, old, new))


def test_the_hinge_has_the_margin_asked_for(given, assert_same):
    teacher = given.normal(2, 3, 2, 2).detach()
    assert_same(
        lambda s: ab.boundary_loss(s, teacher, 0.3),
        lambda s: reference(s, teacher, 0.3),
        given.normal(2, 3, 2, 2, scale=1e3),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_first_boundaries_then_labels(given, assert_trains, dtype):
    batch = prepared(given, dtype=dtype)
    logits, *maps = given.students
    assert_trains(ActivationBoundaries(), batch, learns=maps)
    assert logits.grad is None
    later = dataclasses.replace(batch, phase="", adapters=None)
    assert_trains(ActivationBoundaries(), later, learns=[logits])
    ce = nn.CrossEntropyLoss()(batch.student.logits.float(), batch.targets)
    torch.testing.assert_close(ActivationBoundaries().loss(later), {"ce": ce})


def test_defaults_and_phases():
    strategy = ActivationBoundaries()
    assert strategy.ab_weight == 3 / 1000
    initial = Phase(name="ab", epochs=30, constant_lr=True)
    assert strategy.phases() == (initial, Phase())


def test_refusals():
    assert ActivationBoundaries().supports(tapped(STUDENT), tapped(TEACHER)) is None
    reason = ActivationBoundaries().supports(tapped(STUDENT), tapped({}, "mlp"))
    assert "mlp has no pre-activations" in reason
    with pytest.raises(UserError, match="margin must be > 0"):
        ActivationBoundaries.configured({"margin": 0})
