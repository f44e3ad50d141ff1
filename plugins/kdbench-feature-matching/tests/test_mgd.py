"""mgd: equations of the paper in loops, the mask of the authors' code."""

import copy
from dataclasses import replace

import pytest
import torch
from kdbench_feature_matching import mgd
from torch import nn

from kdbench import Outputs, Tapped, UserError
from kdbench.testing import mutated

SHAPES = {
    "wider": ((2, 4, 3), (3, 4, 3)),
    "same": ((3, 2, 2), (3, 2, 2)),
    "smaller": ((2, 2, 2), (3, 4, 4)),
    "larger": ((2, 4, 4), (3, 2, 2)),
    "vectors": ((4,), (3,)),
}


def tapped(name="net", **shapes):
    return Tapped(name, {**shapes, "logits": (5,)}, nn.Identity())


def prepared(given, student, teacher, module=mgd, **options):
    sides = {"stage1": (9, 8, 8), "stage2": student}, {"stage1": teacher}
    torch.manual_seed(0)
    adapters = module.MaskedGeneration().adapters(*(tapped(**side) for side in sides))
    return given.batch(
        student_shapes=sides[0], teacher_shapes=sides[1], adapters=adapters, **options
    )


def conv(maps, weight, bias):
    (outputs, _, size, _), (_, height, width) = weight.shape, maps.shape
    rows = []
    for i in range(height):
        for j in range(width):
            value = bias
            for u in range(size):
                for v in range(size):
                    y, x = i + u - size // 2, j + v - size // 2
                    if 0 <= y < height and 0 <= x < width:
                        value = value + weight[:, :, u, v] @ maps[:, y, x]
            rows.append(value)
    return torch.stack(rows, dim=1).reshape(outputs, height, width)


def smaller(maps, other):
    if maps.ndim == 1:
        return maps[:, None, None]
    step = max(1, maps.shape[-1] // other.shape[-1])
    parts = [maps[:, i::step, j::step] for i in range(step) for j in range(step)]
    return sum(parts) / step**2


def reference(student, teacher, keep, *weights):
    *align, w1, b1, w2, b2 = weights
    total = 0.0
    for s, t, kept in zip(student, teacher, keep, strict=True):
        s, t = smaller(s, t), smaller(t, s)
        s = conv(s, *align) if align else s
        s = torch.stack([row * k for row, k in zip(s, kept, strict=True)])
        guess = conv(conv(s, w1, b1).relu(), w2, b2)
        total = total + sum((guess - t).flatten() ** 2)
    return total / len(student)


def compare(module, given, assert_same, shapes, items=3):
    batch = prepared(given, *shapes, module, items=items)
    names, weights = zip(*batch.adapters.named_parameters(), strict=True)
    goal = batch.teacher.features["stage1"].detach()
    draws = torch.rand(items, 3, generator=torch.Generator().manual_seed(3))

    def fast(student, *own):
        adapters = copy.deepcopy(batch.adapters).to(student.dtype)
        for name, weight in zip(names, own, strict=True):
            path, _, leaf = name.rpartition(".")
            del adapters.get_submodule(path)._parameters[leaf]
            setattr(adapters.get_submodule(path), leaf, weight)
        stages = {**batch.student.features, "stage2": student}
        seen = replace(
            batch,
            students=(Outputs(batch.student.logits, stages),),
            teachers=(Outputs(goal[:, :2], {"stage1": goal.to(student.dtype)}),),
            adapters=adapters,
            generator=torch.Generator().manual_seed(3),
        )
        strategy = module.MaskedGeneration(mask_ratio=0.5, mgd_weight=2.0)
        return strategy.loss(seen)["generation"]

    assert_same(
        fast,
        lambda s, *w: 2 * reference(s, goal.double(), draws >= 0.5, *w),
        batch.student.features["stage2"],
        *weights,
    )


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("items", [1, 3])
def test_matches_the_definition(given, assert_same, shapes, items):
    compare(mgd, given, assert_same, shapes, items)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("draws >= self.mask_ratio", "draws < self.mask_ratio"),
        ("nn.ReLU()", "nn.Identity()"),
        (" / len(guess)", " / guess.numel()"),
        ("self.align(student) * keep[:, :, None, None]", "self.align(student)"),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, right, wrong):
    module = mutated(mgd, right, wrong)
    with pytest.raises(AssertionError):
        compare(module, given, assert_same, SHAPES["wider"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_trains_the_last_stage_and_the_generator(given, assert_trains, shapes, dtype):
    batch = prepared(given, *shapes, dtype=dtype)
    logits, first, last = given.students
    assert_trains(mgd.MaskedGeneration(), batch, learns=(logits, last))
    assert first.grad is None


def test_documented_weight_and_share(given):
    batch = prepared(given, (3, 2, 2), (3, 2, 2), items=4)
    seeds = [torch.Generator().manual_seed(1) for _ in range(2)]
    value, heavier = (
        mgd.MaskedGeneration(**options).loss(replace(batch, generator=seed))
        for seed, options in zip(seeds, ({}, {"mgd_weight": 1.0}), strict=True)
    )
    torch.testing.assert_close(value["generation"], 7e-5 * heavier["generation"])
    torch.testing.assert_close(value["ce"], heavier["ce"])
    assert mgd.MaskedGeneration().mask_ratio == 0.15
    assert isinstance(batch.adapters.align, nn.Identity)


def test_unsupported_pairs_say_why():
    supports = mgd.MaskedGeneration().supports
    vector, maps = (
        tapped("mlp", stage1=(8,)),
        tapped("cnn", stage1=(8,), stage2=(3, 4, 4)),
    )
    assert supports(maps, tapped("wide", stage4=(9, 2, 2))) is None
    assert "both be maps" in supports(vector, maps)
    assert supports(vector, vector) is None
    assert supports(tapped("bare"), maps) == "bare has no stages"
    assert supports(maps, None) == "there is no teacher"


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_refuses_a_share_that_leaves_nothing(ratio):
    with pytest.raises(UserError, match="mask_ratio must be >= 0 and < 1"):
        mgd.MaskedGeneration.configured({"mask_ratio": ratio})
