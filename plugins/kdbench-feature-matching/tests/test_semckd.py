"""semckd: attention between all stages, in loops from the paper."""

import copy
from dataclasses import replace

import pytest
import torch
from kdbench_feature_matching import semckd
from torch import nn

from kdbench import Outputs, Recipe, Tapped
from kdbench.testing import mutated

RECIPE = Recipe(batch_size=8)
PAIRS = {
    "maps": (
        {"stage1": (2, 4, 4), "stage2": (3, 2, 2)},
        {"stage1": (2, 4, 4), "stage2": (1, 4, 4), "stage3": (2, 2, 2)},
    ),
    "vectors": ({"stage1": (3,), "stage2": (2,)}, {"stage1": (2,), "stage2": (4,)}),
    "both": (
        {"stage1": (2, 2, 3), "stage2": (3,)},
        {"stage1": (2, 3, 3), "stage2": (2,)},
    ),
}


def tapped(name="net", **shapes):
    return Tapped(name, {**shapes, "logits": (5,)}, nn.Identity(), recipe=RECIPE)


def prepared(given, student, teacher, module=semckd, **options):
    torch.manual_seed(0)
    sides = tapped(**student), tapped(**teacher)
    adapters = module.SemanticCalibration().adapters(*sides)
    return given.batch(
        student_shapes=student, teacher_shapes=teacher, adapters=adapters, **options
    )


def conv(maps, weight):
    """Zero-padded convolution of one map (C, H, W), position by position."""
    (outputs, _, size, _), (_, height, width) = weight.shape, maps.shape
    columns = []
    for i in range(height):
        for j in range(width):
            value = torch.zeros(outputs, dtype=maps.dtype)
            for u in range(size):
                for v in range(size):
                    y, x = i + u - size // 2, j + v - size // 2
                    if 0 <= y < height and 0 <= x < width:
                        value = value + weight[:, :, u, v] @ maps[:, y, x]
            columns.append(value)
    return torch.stack(columns, dim=1).reshape(outputs, height, width)


def norm_relu(batch, scale, shift):
    seen = torch.cat([maps.flatten(1) for maps in batch], dim=1)
    mean = seen.sum(dim=1) / seen.shape[1]
    var = ((seen - mean[:, None]) ** 2).sum(dim=1) / seen.shape[1]
    if seen.shape[1] == 1:  # running values of a new layer
        mean, var = torch.zeros_like(mean), torch.ones_like(var)
    factor = scale / torch.sqrt(var + 1e-5)
    return [
        (
            (m - mean[:, None, None]) * factor[:, None, None] + shift[:, None, None]
        ).relu()
        for m in batch
    ]


def pooled(maps, size):
    """Means over the cells of (h, w), as far as it is smaller."""
    height, width = maps.shape[-2:]
    h, w = min(height, size[0]), min(width, size[1])
    cells = [
        maps[:, i * height // h : -(-(i + 1) * height // h), :][
            :, :, j * width // w : -(-(j + 1) * width // w)
        ].mean(dim=(1, 2))
        for i in range(h)
        for j in range(w)
    ]
    return torch.stack(cells, dim=1).reshape(-1, h, w)


def unit_rows(stage, w, path):
    """For each item the embedding of its similarities, filled up with zeros to 8."""
    rows = []
    for one in stage:
        similar = [(one * other).sum() for other in stage]
        similar = torch.stack(similar + [one.new_zeros(())] * (8 - len(stage)))
        hidden = (w[f"{path}.0.weight"] @ similar + w[f"{path}.0.bias"]).relu()
        out = w[f"{path}.2.weight"] @ hidden + w[f"{path}.2.bias"]
        rows.append(out / torch.sqrt((out**2).sum()))
    return rows


def reference(student, teacher, w):
    items, total = len(student[0]), 0.0
    keys = [unit_rows(t, w, f"keys.{i}") for i, t in enumerate(teacher)]
    for i, own in enumerate(student):
        queries = unit_rows(own, w, f"queries.{i}")
        errors = []
        for j, goal in enumerate(teacher):
            p = f"projections.{i}.{j}"
            x = [pooled(maps, goal[0].shape[-2:]) for maps in own]
            for conv_at, norm_at in ((0, 1), (3, 4)):
                x = [conv(maps, w[f"{p}.{conv_at}.weight"]) for maps in x]
                x = norm_relu(x, w[f"{p}.{norm_at}.weight"], w[f"{p}.{norm_at}.bias"])
            x = [conv(maps, w[f"{p}.6.weight"]) for maps in x]
            errors.append(
                [
                    ((a - pooled(b, own[0].shape[-2:])) ** 2).mean()
                    for a, b in zip(x, goal, strict=True)
                ]
            )
        for b in range(items):
            scores = [torch.exp((queries[b] * key[b]).sum()) for key in keys]
            for j, score in enumerate(scores):
                total = total + score / sum(scores) * errors[j][b]
    return total / (items * len(student))


def compare(module, given, assert_same, pair, items=3):
    batch = prepared(given, *PAIRS[pair], module, items=items)
    taps = list(batch.student.features)
    names, weights = zip(*batch.adapters.named_parameters(), strict=True)
    goals = {k: v.detach().double() for k, v in batch.teacher.features.items()}

    def as_maps(features):
        return [list(f if f.ndim == 4 else f[..., None, None]) for f in features]

    def fast(*tensors):
        features, own = tensors[: len(taps)], tensors[len(taps) :]
        dtype = own[0].dtype
        adapters = copy.deepcopy(batch.adapters).to(dtype)
        for name, weight in zip(names, own, strict=True):
            path, _, leaf = name.rpartition(".")
            del adapters.get_submodule(path)._parameters[leaf]
            setattr(adapters.get_submodule(path), leaf, weight)
        logits = batch.student.logits
        student = Outputs(logits, dict(zip(taps, features, strict=True)))
        teacher = Outputs(logits.detach(), {k: v.to(dtype) for k, v in goals.items()})
        return module.SemanticCalibration(sem_weight=2.0).loss(
            replace(batch, students=(student,), teachers=(teacher,), adapters=adapters)
        )["calibration"]

    def slow(*tensors):
        own = dict(zip(names, tensors[len(taps) :], strict=True))
        student = as_maps(tensors[: len(taps)])
        return 2 * reference(student, as_maps(goals.values()), own)

    assert_same(fast, slow, *batch.student.features.values(), *weights)


@pytest.mark.parametrize("items", [1, 3, 8])
@pytest.mark.parametrize("pair", PAIRS)
def test_matches_the_definition(given, assert_same, pair, items):
    compare(semckd, given, assert_same, pair, items)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (
            "queries @ keys.transpose(1, 2), dim=2",
            "queries @ keys.transpose(1, 2), dim=1",
        ),
        ("weighted.sum(dim=2).mean()", "weighted.mean()"),
        ("unit(mlp(padded), dim=1)", "mlp(padded)"),
        ("gram(as_rows(stage))", "gram(as_rows(stage)[:, :2])"),
        ("errors, dim=1).reshape", "errors, dim=1).flip(1).reshape"),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, right, wrong):
    module = mutated(semckd, right, wrong)
    with pytest.raises(AssertionError):
        compare(module, given, assert_same, "maps")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pair", PAIRS)
def test_trains_all_stages_and_adapters(given, assert_trains, pair, dtype):
    batch = prepared(given, *PAIRS[pair], dtype=dtype, items=6)
    assert_trains(semckd.SemanticCalibration(), batch)


def test_documented_weights_and_shapes(given):
    batch = prepared(given, *PAIRS["maps"])
    terms = semckd.SemanticCalibration().loss(batch)
    one = semckd.SemanticCalibration(sem_weight=1.0, kd_weight=2.0).loss(batch)
    torch.testing.assert_close(terms["calibration"], 400 * one["calibration"])
    torch.testing.assert_close(2 * terms["kd"], one["kd"])
    log_p, log_q = (
        (o.logits / 4).log_softmax(dim=1) for o in (batch.teacher, batch.student)
    )
    kd = 16 * (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()
    torch.testing.assert_close(terms["kd"], kd)
    layers = batch.adapters.queries[0]
    assert (layers[0].in_features, layers[2].in_features) == (8, 4)
    assert layers[2].out_features == 2
    assert batch.adapters.projections[0][2][0].out_channels == 4


def test_unsupported_pairs_say_why():
    supports = semckd.SemanticCalibration().supports
    maps, vectors = (tapped(k, **PAIRS[k][0]) for k in ("maps", "vectors"))
    assert supports(maps, vectors) is None
    assert supports(maps, tapped("bare")) == "bare has no stages"
    assert supports(maps, None) == "there is no teacher"
    rows = tapped("text", stage1=(9, 4))
    assert supports(rows, maps) == (
        "stage1 of text must be a map (C, H, W) or a vector (D,), not (9, 4)"
    )
