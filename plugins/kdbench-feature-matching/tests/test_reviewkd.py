"""reviewkd: fusion from the deepest level and pyramid loss, in loops from the paper."""

import copy
from dataclasses import replace

import pytest
import torch
from kdbench_feature_matching import reviewkd
from torch import nn

from kdbench import Outputs, Tapped, UserError
from kdbench.models import pairs
from kdbench.testing import mutated

STUDENT = {"stage1": (2, 6, 6), "stage2": (3, 2, 2), "pooled": (3,)}
PAIRS = {
    "same sizes": (STUDENT, {"stage1": (3, 6, 6), "stage2": (2, 2, 2), "pooled": (4,)}),
    "larger": (STUDENT, {"stage1": (1, 8, 5), "stage2": (2, 4, 4), "pooled": (2,)}),
    "by size": (
        STUDENT,
        {"stage1": (1, 6, 6), "stage2": (2, 6, 6), "stage3": (2, 2, 2), "pooled": (2,)},
    ),
    "vectors": ({"stage1": (4,), "pooled": (3,)}, {"stage1": (5,), "pooled": (2,)}),
}


def with_preacts(shapes):
    """Each preactK in front of its stageK, as models declare them."""
    found = {}
    for tap, shape in shapes.items():
        found |= {tap.replace("stage", "preact"): shape, tap: shape}
    return found


def tapped(name="net", **shapes):
    return Tapped(name, {**with_preacts(shapes), "logits": (5,)}, nn.Identity())


def prepared(given, student, teacher, module=reviewkd, **options):
    torch.manual_seed(0)
    sides = tapped(**student), tapped(**teacher)
    adapters = module.KnowledgeReview().adapters(*sides)
    return given.batch(
        student_shapes=with_preacts(student),
        teacher_shapes=with_preacts(teacher),
        adapters=adapters,
        **options,
    )


def conv(batch, weight, bias=None):
    """Zero-padded convolution of a list of maps (C, H, W), position by position."""
    size, results = weight.shape[-1], []
    for maps in batch:
        (_, height, width), columns = maps.shape, []
        for i in range(height):
            for j in range(width):
                value = torch.zeros(len(weight)).double() if bias is None else bias
                for u in range(size):
                    for v in range(size):
                        y, x = i + u - size // 2, j + v - size // 2
                        if 0 <= y < height and 0 <= x < width:
                            value = value + weight[:, :, u, v] @ maps[:, y, x]
                columns.append(value)
        results.append(torch.stack(columns, dim=1).reshape(-1, height, width))
    return results


def norm(batch, scale, shift):
    seen = torch.cat([maps.flatten(1) for maps in batch], dim=1)
    mean = seen.sum(dim=1) / seen.shape[1]
    var = ((seen - mean[:, None]) ** 2).sum(dim=1) / seen.shape[1]
    if seen.shape[1] == 1:  # running values of a new layer
        mean, var = torch.zeros_like(mean), torch.ones_like(var)
    factor = scale / torch.sqrt(var + 1e-5)
    return [
        (m - mean[:, None, None]) * factor[:, None, None] + shift[:, None, None]
        for m in batch
    ]


def nearest(batch, size):
    (height, width), (h, w) = batch[0].shape[-2:], size
    rows = [i * height // h for i in range(h)]
    columns = [j * width // w for j in range(w)]
    return [maps[:, rows][:, :, columns] for maps in batch]


def cells(n, parts):
    return [(k * n // parts, -(-(k + 1) * n // parts)) for k in range(parts)]


def pyramid(guesses, goals):
    difference = [g - t for g, t in zip(guesses, goals, strict=True)]
    height, width = difference[0].shape[-2:]
    total, weight, weights = 0.0, 1.0, 0.0
    for size in (None, 4, 2, 1):
        if size is None:
            values = torch.stack(difference).flatten()
        elif size < min(height, width):
            values = torch.stack(
                [
                    d[:, top:bottom, left:right].mean(dim=(1, 2))
                    for d in difference
                    for top, bottom in cells(height, size)
                    for left, right in cells(width, size)
                ]
            ).flatten()
        else:
            continue
        total = total + weight * sum(values**2) / len(values)
        weights += weight
        weight /= 2
    return total / weights


def reference(student, teacher, weights):
    """Levels from the shallowest, lists of maps; the weights of each, by name."""
    mixed, total = None, 0.0
    for s, t, w in zip(student[::-1], teacher[::-1], weights[::-1], strict=True):
        own = conv(s, w["inward.0.weight"])
        own = norm(own, w["inward.1.weight"], w["inward.1.bias"])
        if mixed is not None:
            deeper = nearest(mixed, own[0].shape[-2:])
            both = [torch.cat(pair) for pair in zip(own, deeper, strict=True)]
            gates = conv(both, w["gate.weight"], w["gate.bias"])
            gates = [1 / (1 + torch.exp(-g)) for g in gates]
            own = [
                g[0] * a + g[1] * b for g, a, b in zip(gates, own, deeper, strict=True)
            ]
        mixed = nearest(own, t[0].shape[-2:])
        guess = conv(mixed, w["outward.0.weight"])
        guess = norm(guess, w["outward.1.weight"], w["outward.1.bias"])
        total = total + pyramid(guess, t)
    return total


def read(student):
    """What is read of the student: its stages after the ReLU, and the pooled vector."""
    return {k: v for k, v in student.features.items() if not k.startswith("preact")}


def compare(module, given, assert_same, pair, items=5):
    batch = prepared(given, *PAIRS[pair], module, items=items)
    inputs = read(batch.student)
    taps = list(inputs)
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
        teacher = Outputs(logits, {k: v.to(dtype) for k, v in goals.items()})
        strategy = module.KnowledgeReview(review_weight=2.0)
        return strategy.loss(
            replace(batch, students=(student,), teachers=(teacher,), adapters=adapters)
        )["review"]

    def slow(*tensors):
        own = dict(zip(names, tensors[len(taps) :], strict=True))
        levels = [
            {
                k.partition(".")[2]: v
                for k, v in own.items()
                if k.startswith(f"{level}.")
            }
            for level in range(len(taps))
        ]
        before = [v for k, v in goals.items() if not k.startswith("stage")]
        teacher = before[-len(taps) :]
        return 2 * reference(as_maps(tensors[: len(taps)]), as_maps(teacher), levels)

    assert_same(fast, slow, *inputs.values(), *weights)


@pytest.mark.parametrize("pair", PAIRS)
def test_matches_the_definition(given, assert_same, pair):
    compare(reviewkd, given, assert_same, pair)


def test_matches_the_definition_for_one_item(given, assert_same):
    compare(reviewkd, given, assert_same, "same sizes", items=1)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("gates[:, :1] * mixed", "mixed"),
        ("(4, 2, 1)", "(4, 2)"),
        (" / sum(weights)", ""),
        ("reversed(levels)", "levels"),
        ("return self.outward(mixed), mixed", "return self.outward(mixed), level"),
        ("before_relu(batch.teacher)", "batch.teacher"),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, right, wrong):
    module = mutated(reviewkd, right, wrong)
    with pytest.raises((AssertionError, RuntimeError)):
        compare(module, given, assert_same, "same sizes")


@pytest.mark.parametrize("items", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pair", PAIRS)
def test_trains_all_levels_and_the_fusion(given, assert_trains, pair, items, dtype):
    batch = prepared(given, *PAIRS[pair], items=items, dtype=dtype)
    learns = [batch.student.logits, *read(batch.student).values()]
    assert_trains(reviewkd.KnowledgeReview(), batch, learns)
    preacts = set(batch.student.features) - set(read(batch.student))
    assert preacts
    assert all(batch.student.features[tap].grad is None for tap in preacts)


def test_warm_up_and_documented_weights(given):
    batch = prepared(given, *PAIRS["same sizes"])
    full = reviewkd.KnowledgeReview(review_weight=1.0).loss(batch)
    for epoch, factor in ((0.0, 0.05), (0.9, 0.05), (9.5, 0.5), (19, 1), (200, 1)):
        terms = reviewkd.KnowledgeReview().loss(replace(batch, epoch=epoch))
        torch.testing.assert_close(terms["review"], 5 * factor * full["review"])
        torch.testing.assert_close(terms["ce"], full["ce"])
    assert reviewkd.KnowledgeReview(warmup_epochs=0).warm_up(0.0) == 1


def test_the_fusion_is_as_wide_as_the_pooled_vector_up_to_a_cap():
    sides = (
        tapped(stage1=(8, 4, 4), pooled=(600,)),
        tapped(stage1=(7, 4, 4), pooled=(9,)),
    )
    for cap, width in ((512, 512), (1000, 600)):
        fusion = reviewkd.KnowledgeReview(mid_channels=cap).adapters(*sides)
        assert fusion[0].gate.in_channels == 2 * width
        assert fusion[-1].gate is None


def test_authors_weights_are_for_pairs_that_are_there():
    presets = reviewkd.KnowledgeReview.presets["authors"]
    assert set(presets) <= {pair.name for pair in pairs.PAIRS}
    assert presets["resnet56-resnet20"] == {"review_weight": 0.6}
    assert all(reviewkd.KnowledgeReview.configured(p) for p in presets.values())


def test_unsupported_pairs_and_values_say_why():
    supports = reviewkd.KnowledgeReview().supports
    maps, vectors = (tapped(k, **PAIRS[k][0]) for k in ("larger", "vectors"))
    assert "no rule matches" in supports(vectors, maps)
    assert "both be maps" in supports(vectors, tapped(stage1=(2, 2, 2), pooled=(2,)))
    for shape, said in (((1, 9, 5), "(1, 9, 5)"), (None, "none")):
        shapes = {**tapped(**PAIRS["larger"][1]).shapes, "preact1": shape}
        shapes = {tap: shape for tap, shape in shapes.items() if shape}
        assert supports(maps, Tapped("big", shapes, nn.Identity())) == (
            f"preact1 of big must have the shape of its stage1: {said} and (1, 8, 5)"
        )
    with pytest.raises(UserError, match="mid_channels must be >= 1"):
        reviewkd.KnowledgeReview.configured({"mid_channels": 0})
