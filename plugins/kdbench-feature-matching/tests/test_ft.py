"""ft: paraphraser, translator and factors from their own weights, phase by phase."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from kdbench_feature_matching import ft
from kdbench_feature_matching.ft import FactorTransfer
from torch import nn

from kdbench import Phase, Tapped, UserError
from kdbench.testing import mutated

SHAPES = [((3, 4, 4), (4, 4, 4)), ((3, 4, 4), (4, 2, 2)), ((3, 2, 2), (4, 4, 4))]
SHAPES += [((3,), (4,))]


def tapped(name, *shapes):
    return Tapped(
        name, {f"stage{k + 1}": s for k, s in enumerate(shapes)}, nn.Identity()
    )


def prepared(given, student, teacher, module=ft, **options):
    """The last stages are these; the first ones must not matter."""
    sides = (
        tapped("student", (2, 4, 4), student),
        tapped("teacher", (9,), (7,), teacher),
    )
    assert FactorTransfer().supports(*sides) is None
    torch.manual_seed(0)
    return given.batch(
        student_shapes=sides[0].shapes,
        teacher_shapes=sides[1].shapes,
        adapters=module.FactorTransfer().adapters(*sides),
        **options,
    )


def through(layers, x, batchwise=True):
    """Three linear maps, each standardised, a negative value then tenfold smaller."""
    for linear, norm in ((layers[0], layers[1]), (layers[3], layers[4]), layers[6:8]):
        if x.ndim == 4:
            around = F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
            x = torch.einsum("bchwij,ocij->bhwo", around, linear.weight)
        else:
            x = x @ linear.weight.T
        places = x.flatten(0, -2)
        mean, spread = norm.running_mean, norm.running_var
        if batchwise and len(x) > 1:
            mean = places.mean(dim=0)
            spread = (places - mean).square().mean(dim=0)
        x = (x - mean) / (spread + norm.eps).sqrt()
        x = torch.where(x > 0, x, 0.1 * x).movedim(-1, 1)
    return x


def pooled(x, size):
    if x.ndim < 4 or x.shape[2] == size:
        return x
    step = x.shape[2] // size
    return x.unfold(2, step, step).unfold(3, step, step).mean(dim=(4, 5))


def reference(student, teacher):
    size = min(student.shape[-1], teacher.shape[-1])
    total = 0.0
    for s, t in zip(pooled(student, size), pooled(teacher, size), strict=True):
        s, t = s.flatten(), t.flatten()
        s, t = s / sum(x**2 for x in s) ** 0.5, t / sum(x**2 for x in t) ** 0.5
        total = total + sum(abs(x - y) for x, y in zip(s, t, strict=True)) / len(s)
    return total / len(student)


@pytest.fixture
def compare(given, assert_same):
    """Compares both phases of a module with the reference."""

    def check(module, shapes=SHAPES[0], items=3):
        batch = prepared(given, *shapes, module, items=items, dtype=torch.float64)
        parts = batch.adapters.double()
        own, target = (x.features for x in (batch.student, batch.teacher))
        *_, maps = own.values()
        *_, wanted = target.values()
        for name, buffer in parts.named_buffers():
            if "running" in name:
                nn.init.uniform_(buffer, 0.5, 2)
        kept = copy.deepcopy(parts)

        def fast(x, phase=""):
            def side(outputs, name, feature):
                features = {**outputs.features, name: feature.to(x.dtype)}
                return (dataclasses.replace(outputs, features=features),)

            *_, last_own = own
            *_, last_target = target
            sides = dataclasses.replace(
                batch,
                phase=phase,
                adapters=parts.to(x.dtype),
                students=side(batch.student, last_own, x),
                teachers=side(batch.teacher, last_target, wanted),
            )
            terms = module.FactorTransfer(ft_weight=3).loss(sides)
            return terms["reconstruction" if phase else "factor"]

        def slow(x):
            factor = through(kept["paraphraser"], wanted, batchwise=False).detach()
            return 3 * reference(through(kept["translator"], x), factor)

        assert_same(fast, slow, maps)
        parts.double().load_state_dict(kept.state_dict())
        rebuilt = through(kept["decoder"], through(kept["paraphraser"], wanted))
        torch.testing.assert_close(
            fast(maps, "paraphraser"), (rebuilt - wanted).square().mean()
        )

    return check


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("items", [1, 3])
def test_matches_the_definition(compare, shapes, items):
    compare(ft, shapes, items)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("F.l1_loss", "F.mse_loss"),
        ("unit(s.flatten(1), dim=1)", "unit(s, dim=1).flatten(1)"),
        ("F.mse_loss(rebuilt, of_teacher)", "F.l1_loss(rebuilt, of_teacher)"),
        (".eval()", ""),
        ("LeakyReLU(0.1)", "LeakyReLU(0.2)"),
    ],
)
def test_wrong_formulas_are_noticed(compare, old, new):
    with pytest.raises(AssertionError):
        compare(mutated(ft, old, new))


def learning(batch, module=ft):
    """Which parts of the adapters are given gradients."""
    batch.adapters.zero_grad()
    sum(module.FactorTransfer().loss(batch).values()).backward()
    parts = batch.adapters.items()
    learnt = {k: [p.grad is not None for p in part.parameters()] for k, part in parts}
    assert all(len(set(grads)) == 1 for grads in learnt.values())
    return {name for name, grads in learnt.items() if grads[0]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_who_learns_in_which_phase(given, shapes, dtype):
    batch = prepared(given, *shapes, dtype=dtype)
    first = dataclasses.replace(batch, phase="paraphraser", students=())
    assert learning(first) == {"paraphraser", "decoder"}
    assert all(x.grad is None for x in given.students)
    assert learning(batch) == {"translator"}
    logits, _, last = given.students
    assert all(x.grad.isfinite().all() and x.grad.any() for x in (logits, last))
    assert all(x.grad is None for x in given.teachers)
    assert learning(batch, mutated(ft, "no_grad", "enable_grad")) == {"translator"}


def test_weights_scale_their_own_term(given):
    batch = prepared(given, *SHAPES[0])
    once, other = (
        FactorTransfer(**weights).loss(batch)
        for weights in ({}, {"ce_weight": 3, "ft_weight": 1})
    )
    torch.testing.assert_close(once["factor"], 200 * other["factor"])
    ce = nn.CrossEntropyLoss()(batch.student.logits, batch.targets)
    torch.testing.assert_close((once["ce"], other["ce"]), (ce, 3 * ce))


def test_silent_and_extreme_maps_stay_finite(given):
    silent = torch.zeros(2, 3, requires_grad=True)
    value = ft.factor_loss(silent, given.normal(2, 3, scale=1e4).float())
    assert value.isfinite()
    assert torch.autograd.grad(value, silent)[0].isfinite().all()


def test_phases_and_the_width_of_factors():
    options = {"students": (), "constant_lr": True}
    initial = Phase(name="paraphraser", epochs=30, **options)
    assert FactorTransfer().phases() == (initial, Phase())
    sides = tapped("student", (3,)), tapped("teacher", (7,))
    for rate, width in ((0.5, 4), (0.01, 1), (2, 14)):
        parts = FactorTransfer(factor_rate=rate).adapters(*sides)
        assert parts["paraphraser"][6].out_features == width
        assert parts["translator"][6].out_features == width


def test_refusals():
    supports = FactorTransfer().supports
    vector, maps = tapped("mlp", (3, 2, 2), (8,)), tapped("cnn", (8, 4, 4))
    assert "stage2 of mlp and stage1 of cnn must both be" in supports(vector, maps)
    assert supports(maps, tapped("none")) == "none has no stages"
    assert supports(maps, None) == "there is no teacher"
    with pytest.raises(UserError, match="factor_rate must be > 0"):
        FactorTransfer.configured({"factor_rate": 0})
