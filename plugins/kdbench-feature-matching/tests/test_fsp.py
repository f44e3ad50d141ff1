"""fsp: Gram matrices between stages, from the paper; first these, then the labels."""

import dataclasses

import pytest
import torch
from kdbench_feature_matching import fsp
from kdbench_feature_matching.fsp import SolutionFlow
from torch import nn

from kdbench import Outputs, Phase, Tapped
from kdbench.testing import mutated

SHAPES = [(2, 4, 4), (3, 2, 2), (4, 2, 2)]


def named(*shapes):
    return {f"stage{k + 1}": shape for k, shape in enumerate(shapes)}


def answer(maps, dtype=None):
    return Outputs(maps[0], named(*(x.to(dtype or x.dtype) for x in maps)))


def reference(students, teachers):
    def gram(earlier, later, item, i, j):
        size, step = later.shape[-1], earlier.shape[-1] // later.shape[-1]
        total = 0.0
        for x in range(size):
            for y in range(size):
                rows = slice(x * step, (x + 1) * step)
                tile = earlier[item, i, rows, y * step : (y + 1) * step]
                total = total + tile.max() * later[item, j, x, y]
        return total / size**2

    total = 0.0
    for k in range(len(students) - 1):
        s, t = students[k : k + 2], teachers[k : k + 2]
        wrong = [
            gram(*s, item, i, j) - gram(*t, item, i, j)
            for item in range(len(s[0]))
            for i in range(s[0].shape[1])
            for j in range(s[1].shape[1])
        ]
        total = total + sum(x**2 for x in wrong) / len(wrong)
    return total


@pytest.fixture
def compare(given, assert_same):
    """Compares a module's `flow_loss` with the reference."""

    def check(module, items=3):
        teachers = [given.normal(items, *shape).detach() for shape in SHAPES]
        students = [given.normal(items, *shape) for shape in SHAPES]

        def fast(*maps):
            return module.flow_loss(answer(maps), answer(teachers, maps[0].dtype))

        assert_same(fast, lambda *maps: reference(maps, teachers), *students)

    return check


@pytest.mark.parametrize("items", [1, 3])
def test_matches_the_definition(compare, items):
    compare(fsp, items)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("adaptive_max_pool2d", "adaptive_avg_pool2d"),
        (" / later[0, 0].numel()", ""),
        ("flow_of(student, s, next_s)", "flow_of(student, s, next_s).square()"),
        ("torch.stack(losses).sum()", "torch.stack(losses).mean()"),
    ],
)
def test_wrong_formulas_are_noticed(compare, old, new):
    with pytest.raises(AssertionError):
        compare(mutated(fsp, old, new))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_first_the_flow_then_the_labels(given, assert_trains, dtype):
    shapes = named(*SHAPES)
    batch = given.batch(student_shapes=shapes, teacher_shapes=shapes, dtype=dtype)
    logits, *maps = given.students
    first = dataclasses.replace(batch, phase="fsp")
    assert_trains(SolutionFlow(), first, learns=maps)
    assert logits.grad is None
    (name, value), *rest = SolutionFlow(fsp_weight=2).loss(first).items()
    assert (name, rest) == ("flow", [])
    expected = fsp.flow_loss(batch.student, batch.teacher)
    torch.testing.assert_close(value, 2 * expected)
    given.students = [logits]
    assert_trains(SolutionFlow(), batch)
    terms = SolutionFlow().loss(batch)
    ce = nn.CrossEntropyLoss()(batch.student.logits.float(), batch.targets)
    torch.testing.assert_close(terms, {"ce": ce})


def test_extreme_features_stay_finite(given):
    maps = [given.normal(2, *shape, scale=1e3).float() for shape in SHAPES]
    value = fsp.flow_loss(answer(maps), answer([-x.detach() for x in maps]))
    gradients = torch.autograd.grad(value, [x for x in maps if x.requires_grad])
    assert all(torch.isfinite(x).all() for x in (value, *gradients))


def test_phases():
    initial = Phase(name="fsp", epochs=30, constant_lr=True)
    assert SolutionFlow().phases() == (initial, Phase())
    assert SolutionFlow(fsp_epochs=2).phases()[0].epochs == 2


def test_needs_equally_wide_maps_and_two_of_them():
    supports = SolutionFlow().supports
    model, wide, one, flat = (
        Tapped("model", named(*shapes), nn.Identity())
        for shapes in (SHAPES, [(9, 4, 4), *SHAPES[1:]], SHAPES[:1], [(3,), (4,)])
    )
    assert supports(model, model) is None
    assert "equally wide in both models: (2, 4, 4) and (9" in supports(model, wide)
    assert supports(one, one) == "model has one stage only: nothing flows"
    assert "is no map (C, H, W): (3,)" in supports(flat, flat)
    assert supports(model, None) == "there is no teacher"
