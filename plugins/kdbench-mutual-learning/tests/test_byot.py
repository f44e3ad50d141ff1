"""byot: shallow exits learn from the labels and from the deepest classifier."""

import dataclasses

import pytest
import torch
from kdbench_mutual_learning import byot
from kdbench_mutual_learning.byot import BeYourOwnTeacher, Exits, bottleneck
from torch import nn

from kdbench import Outputs, Tapped, UserError
from kdbench.testing import mutated

STAGES = {"stage1": (4,), "stage2": (3,), "stage3": (5,)}
WIDTH = 6
MAPS = {"stage1": (4, 8, 8), "stage2": (6, 4, 4), "stage3": (8, 2, 2)}


def softmax(z, temperature=1.0):
    top = max(float(x.detach()) for x in z)
    weights = [torch.exp((x - top) / temperature) for x in z]
    total = sum(weights)
    return [w / total for w in weights]


def linear(weight, bias, x):
    rows = zip(weight, bias, strict=True)
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in rows]


def reference(logits, pooled, stages, weights, targets, temperature):
    """2 CE + 3 shallow CE + 5 T^2 KL + 7 norm; `weights` is a state dict."""
    total = 0.0
    for b, y in enumerate(targets.tolist()):
        total = total - 2 * torch.log(softmax(logits[b])[y]) / len(targets)
    for k, stage in enumerate(stages):
        inner = [weights[f"bottlenecks.{k}.0.{p}"] for p in ("weight", "bias")]
        outer = [weights[f"classifiers.{k}.{p}"] for p in ("weight", "bias")]
        squares = 0.0
        for b, y in enumerate(targets.tolist()):
            feature = [max(x, 0 * x) for x in linear(*inner, stage[b])]
            z = linear(*outer, feature)
            p = [x.detach() for x in softmax(logits[b], temperature)]
            q = softmax(z, temperature)
            kl = sum(a * torch.log(a / b) for a, b in zip(p, q, strict=True))
            own = -3 * torch.log(softmax(z)[y]) + 5 * temperature**2 * kl
            total = total + own / len(targets)
            target = pooled[b].detach()
            squares = squares + sum(
                (f - t) ** 2 for f, t in zip(feature, target, strict=True)
            )
        total = total + 7 * squares**0.5
    return total


@pytest.fixture
def compare(given, assert_same):
    """The module's loss, on stages that are vectors, against the reference."""

    def check(module, size, temperature=3.0):
        batch = given.batch(items=size[0], classes=size[1], teachers=0)
        sketch = module.Exits(list(STAGES.values()), WIDTH, size[1])
        names = list(dict(sketch.named_parameters()))

        def fast(logits, *tensors):
            stages, weights = tensors[:3], dict(zip(names, tensors[3:], strict=True))
            features = dict(zip(STAGES, stages, strict=True))
            deepest = pooled.to(logits.dtype).requires_grad_()
            seen = dataclasses.replace(
                batch,
                students=(Outputs(logits, {**features, "pooled": deepest}),),
                adapters=lambda x: torch.func.functional_call(sketch, weights, (x,)),
            )
            strategy = module.BeYourOwnTeacher(
                temperature=temperature,
                ce_weight=2,
                shallow_ce_weight=3,
                kd_weight=5,
                feature_weight=7,
            )
            # The last stage is tapped, and not used.
            return sum(strategy.loss(seen).values()) + 0 * stages[2].sum()

        def slow(logits, *tensors):
            weights = dict(zip(names, tensors[3:], strict=True))
            value = reference(
                logits, pooled, tensors[:2], weights, batch.targets, temperature
            )
            return value + 0 * tensors[2].sum()

        pooled = given.normal(size[0], WIDTH).detach()
        stages = [given.normal(size[0], *shape) for shape in STAGES.values()]
        weights = [given.normal(*p.shape) for p in sketch.parameters()]
        assert_same(fast, slow, given.normal(*size, scale=2), *stages, *weights)

    return check


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (4, 2), (1, 1000)], ids=str)
def test_matches_the_definition(compare, size):
    compare(byot, size)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("soft_kl(z, logits, self.temperature)", "soft_kl(z, logits)"),
        ("torch.stack(kd).sum()", "torch.stack(kd).mean()"),
        ("(b - deepest) for", "(b - deepest).square() for"),
        ("[:-1])", "[1:])"),
        ("soft_kl(z, logits,", "soft_kl(logits, z,"),
    ],
)
def test_a_mistake_is_noticed(compare, right, wrong):
    with pytest.raises((AssertionError, RuntimeError)):  # or shapes that do not fit
        compare(mutated(byot, right, wrong), (4, 5))


def side(stages, pooled=(WIDTH,)):
    shapes = {**stages, "pooled": pooled, "logits": (5,)}
    return Tapped("student", shapes, nn.Identity())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stages", [STAGES, MAPS], ids=["vectors", "maps"])
@pytest.mark.parametrize("items", [1, 6])
def test_trains_the_student_and_the_exits(given, assert_trains, dtype, stages, items):
    strategy = BeYourOwnTeacher()
    assert strategy.supports(side(stages), None) is None
    batch = given.batch(
        items=items,
        student_shapes={**stages, "pooled": (WIDTH,)},
        teachers=0,
        adapters=strategy.adapters(side(stages), None),
        dtype=dtype,
    )
    logits, first, second, _, pooled = given.students
    assert_trains(strategy, batch, [logits, first, second])
    assert pooled.grad is None  # the target of the feature term is a constant


def test_bottlenecks_end_at_the_width_of_the_pooled_features(given):
    """A quarter as wide inside; each strides to the size of the last stage."""
    for shape, patch in (((4, 8, 8), (4, 4)), ((4, 7, 3), (3, 1)), ((4, 1, 2), (1, 1))):
        layers = bottleneck(shape, (9, 2, 2), 16)
        assert layers(torch.randn(3, *shape)).shape == (3, 16)
        assert layers[3].kernel_size == layers[3].stride == patch
        assert layers[3].out_channels == 4
    exits = Exits([(4, 8, 8), (6, 4, 4), (8, 2, 2)], 16, 5)
    assert len(exits.bottlenecks) == len(exits.classifiers) == 2


@pytest.mark.parametrize("shape", [(4, 1, 1), (4, 2, 2)], ids=str)
def test_a_single_item_of_one_pixel_is_normed_by_the_running_values(shape):
    """The stage may be larger: what counts is the map that the norm sees."""
    layers = bottleneck(shape, (9, 1, 1), 16).requires_grad_(False)
    maps = torch.randn(1, *shape)
    lone = [part for part in layers if isinstance(part, byot.Norm)]
    lone = lone if shape[1] == 1 else lone[1:]
    before = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in lone]
    found = layers(maps)
    assert found.shape == (1, 16)
    for norm, (mean, var) in zip(lone, before, strict=True):
        assert norm.running_mean.equal(mean)
        assert norm.running_var.equal(var)
    if shape[1] == 1:
        torch.testing.assert_close(found, layers.eval()(maps))


def test_documented_weights():
    own = BeYourOwnTeacher()
    assert (own.ce_weight, own.shallow_ce_weight) == (1, 0.7)
    assert (own.feature_weight, own.temperature) == (0.03, 3)
    # The authors' 0.3 is on a cross-entropy without T^2.
    assert own.kd_weight * own.temperature**2 == pytest.approx(0.3, rel=2e-3)


def test_says_what_it_cannot_give_exits():
    supports = BeYourOwnTeacher().supports
    assert "fewer than two stages" in supports(side({"stage1": (4,)}), None)
    tokens = side({"stage1": (7, 4), "stage2": (7, 4)})
    assert "neither all maps nor all vectors" in supports(tokens, None)
    mixed = side({"stage1": (4, 8, 8), "stage2": (4,)})
    assert "neither all maps nor all vectors" in supports(mixed, None)
    assert "no vector" in supports(side(MAPS, pooled=(7, 4)), None)


def test_finite_at_extreme_values(given):
    adapters = Exits(list(STAGES.values()), WIDTH, 5)
    shapes = {**STAGES, "pooled": (WIDTH,)}
    batch = given.batch(student_shapes=shapes, teachers=0, adapters=adapters, scale=1e3)
    terms = BeYourOwnTeacher().loss(batch)
    sum(terms.values()).backward()
    assert all(torch.isfinite(value) for value in terms.values())
    for leaf in (*given.students[:3], *adapters.parameters()):
        assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("bad", [{"feature_weight": -1}, {"temperature": 0}])
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        BeYourOwnTeacher.configured(bad)
