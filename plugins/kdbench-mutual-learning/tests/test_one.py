"""one: branches, of which the student is the first, learn from their ensemble."""

import dataclasses
import math
from functools import partial

import pytest
import torch
from kdbench_mutual_learning import branches, one
from kdbench_mutual_learning.branches import Branches
from kdbench_mutual_learning.one import NativeEnsemble
from torch import nn

from kdbench import Outputs, Tapped, UserError
from kdbench.models.mlp import mlp
from kdbench.models.resnet import cifar_resnet
from kdbench.testing import mutated

SHAPE = (3, 2, 2)


def softmax(z, temperature=1.0):
    top = max(float(x.detach()) for x in z)
    weights = [torch.exp((x - top) / temperature) for x in z]
    total = sum(weights)
    return [w / total for w in weights]


def gates_of(weight, shared):
    """softmax(relu(batch norm(linear(mean over space)))), item by item."""
    pooled = [[channel.mean() for channel in item] for item in shared]
    scores = [
        sum(w * x for w, x in zip(row, item, strict=True))
        for item in pooled
        for row in weight
    ]
    scores = torch.stack(scores).reshape(len(shared), -1)
    mean = scores.mean(0)
    variance = ((scores - mean) ** 2).mean(0)
    if len(shared) == 1:  # the statistics that batch norm starts with
        mean, variance = torch.zeros_like(mean), torch.ones_like(mean)
    normed = (scores - mean) / (variance + 1e-5).sqrt()
    return [softmax([max(x, 0 * x) for x in item]) for item in normed]


def reference(own, shared, weight, parts, targets, temperature):
    """2 CE of the branches + 3 CE of the ensemble + 5 T^2 KL."""
    branches = [own, *([w @ item.flatten() for item in shared] for w in parts)]
    gates = gates_of(weight, shared)
    total = 0.0
    for b, y in enumerate(targets.tolist()):
        rows = [branch[b] for branch in branches]
        mixed = sum(g * z for g, z in zip(gates[b], rows, strict=True))
        p = [x.detach() for x in softmax(mixed, temperature)]
        total = total - 3 * torch.log(softmax(mixed)[y])
        for z in rows:
            q = softmax(z, temperature)
            kl = sum(a * torch.log(a / b) for a, b in zip(p, q, strict=True))
            total = total - 2 * torch.log(softmax(z)[y]) + 5 * temperature**2 * kl
    return total / len(targets)


@pytest.fixture
def compare(given, assert_same):
    """The module's loss, with linear branches, against the reference."""

    def check(module, size, temperature=3.0, source=branches):
        batch = given.batch(items=size[0], classes=size[1], teachers=0)
        names = ["gate.weight", "parts.0.1.weight", "parts.1.1.weight"]

        def fast(own, shared, *weights):
            linear = partial(nn.Linear, math.prod(SHAPE), size[1], bias=False)
            parts = [nn.Sequential(nn.Flatten(), linear()) for _ in range(2)]
            adapters = source.Branches(parts, SHAPE[0]).to(own.dtype)
            given_weights = dict(zip(names, weights, strict=True))
            seen = dataclasses.replace(
                batch,
                students=(Outputs(own, {"stage1": shared, "stage2": shared * 0}),),
                adapters=lambda *x: torch.func.functional_call(
                    adapters, given_weights, x
                ),
            )
            strategy = module.NativeEnsemble(
                temperature=temperature, ce_weight=2, ensemble_weight=3, kd_weight=5
            )
            return sum(strategy.loss(seen).values())

        def slow(own, shared, weight, *parts):
            value = reference(own, shared, weight, parts, batch.targets, temperature)
            return value + 0 * sum(p.sum() for p in parts)

        inputs = [given.normal(*size, scale=2), given.normal(size[0], *SHAPE)]
        inputs.append(given.normal(3, SHAPE[0]))
        inputs += [given.normal(size[1], math.prod(SHAPE)) for _ in range(2)]
        assert_same(fast, slow, *inputs)

    return check


@pytest.mark.parametrize("size", [(1, 2), (5, 10), (4, 2), (1, 1000)], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_matches_the_definition(compare, size, temperature):
    compare(one, size, temperature)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("features.values())[-2]", "features.values())[-1]"),
        ("soft_kl(z, ensemble, self.temperature)", "soft_kl(z, ensemble)"),
        ("self.ensemble_weight * ", "0 * self.ensemble_weight * "),
        ("gates.T[..., None] * branches", "gates.T[..., None].detach() * branches"),
    ],
)
def test_a_mistake_is_noticed(compare, right, wrong):
    with pytest.raises((AssertionError, RuntimeError)):  # or no gradient at all
        compare(mutated(one, right, wrong), (4, 5))


@pytest.mark.parametrize(
    ("right", "wrong"), [("softmax(dim=1)", "softmax(dim=0)"), (".relu()", "")]
)
def test_a_wrong_gate_is_noticed(compare, right, wrong):
    with pytest.raises(AssertionError):
        compare(one, (4, 5), source=mutated(branches, right, wrong))


def side(model, shape, stages):
    build = partial(model.build, shape, 5)
    paths = {name: model.taps[name] for name in stages}
    return Tapped(model.name, {**stages, "logits": (5,)}, build(), paths, build)


def resnet():
    stages = {"stage1": (16, 8, 8), "stage2": (32, 4, 4), "stage3": (64, 2, 2)}
    return side(cifar_resnet(8), (3, 8, 8), stages)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_every_branch_and_the_gate(given, assert_trains, dtype):
    student = resnet()
    strategy = NativeEnsemble()
    assert strategy.supports(student, None) is None
    adapters = strategy.adapters(student, None)
    batch = given.batch(
        student_shapes=student.stages, teachers=0, adapters=adapters, dtype=dtype
    )
    logits, _, shared, _ = given.students
    assert_trains(strategy, batch, [logits, shared])
    first, second = (part.state_dict() for part in adapters.parts)
    assert not torch.equal(first["classifier.weight"], second["classifier.weight"])


def test_shares_all_but_the_last_stage():
    student = resnet()
    adapters = NativeEnsemble(branches=4).adapters(student, None)
    assert len(adapters.parts) == 3
    behind = {"stages.2", "classifier"}
    names = {n.rpartition(".")[0] for n, _ in student.model.named_parameters()}
    expected = {n for n in names if any(n.startswith(part) for part in behind)}
    found = {n.rpartition(".")[0] for n, _ in adapters.parts[0].named_parameters()}
    assert found == expected


def test_supports_vectors_and_says_what_it_cannot_branch():
    strategy = NativeEnsemble()
    dense = side(mlp(8, 6), (4,), {"stage1": (8,), "stage2": (6,)})
    assert strategy.supports(dense, None) is None
    assert strategy.adapters(dense, None).gate.in_features == 8
    single = side(mlp(8), (4,), {"stage1": (8,)})
    assert "fewer than two stages" in strategy.supports(single, None)
    tokens = dataclasses.replace(dense, shapes={"stage1": (7, 8), "stage2": (7, 6)})
    assert "neither a map nor a vector" in strategy.supports(tokens, None)
    twice = dataclasses.replace(dense, model=nn.Sequential(nn.ReLU()))
    assert "cannot be branched: its forward pass" in strategy.supports(twice, None)


def test_finite_at_extreme_logits(given):
    parts = [nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 5))]
    adapters = Branches(parts, SHAPE[0])
    shapes = {"stage1": SHAPE, "stage2": SHAPE}
    batch = given.batch(student_shapes=shapes, teachers=0, adapters=adapters, scale=1e3)
    terms = NativeEnsemble(branches=2).loss(batch)
    sum(terms.values()).backward()
    assert all(torch.isfinite(value) for value in terms.values())
    for leaf in (*given.students[:2], *adapters.parameters()):
        assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("bad", [{"branches": 1}, {"temperature": 0}])
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        NativeEnsemble.configured(bad)
