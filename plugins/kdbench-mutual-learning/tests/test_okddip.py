"""okddip: peers learn from mixtures of each other, the leader from their mean."""

import dataclasses

import pytest
import torch
from kdbench_mutual_learning import okddip
from kdbench_mutual_learning.okddip import Attention, DiversePeers, two_level_kl
from torch import nn

from kdbench import Outputs, Tapped, UserError
from kdbench.testing import mutated

WIDTH = 6


def softmax(z, temperature=1.0):
    top = max(float(x.detach()) for x in z)
    weights = [torch.exp((x - top) / temperature) for x in z]
    total = sum(weights)
    return [w / total for w in weights]


def kl(p, q):
    return sum(a * torch.log(a / b) for a, b in zip(p, q, strict=True))


def project(weight, h):
    return [sum(w * x for w, x in zip(row, h, strict=True)) for row in weight]


def reference(logits, pooled, asks, answers, targets, temperature):
    """2 CE + 3 peers + 5 leader; `pooled` are the peers', `logits` the leader's too."""
    total = 0.0
    for b, y in enumerate(targets.tolist()):
        leader, *peers = (softmax(z[b], temperature) for z in logits)
        classes = range(len(leader))
        for a, own in enumerate(peers):
            asked = project(asks, pooled[a][b])
            keys = [project(answers, h[b]) for h in pooled]
            scores = [sum(x * y for x, y in zip(asked, k, strict=True)) for k in keys]
            w = softmax(scores)
            mixed = [
                sum(w[f] * peers[f][c] for f in range(len(peers))) for c in classes
            ]
            total = total + 3 * temperature**2 * kl(mixed, own)
        mean = [sum(q[c] for q in peers) / len(peers) for c in classes]
        total = total + 5 * temperature**2 * kl(mean, leader)
        total = total - sum(2 * torch.log(softmax(z[b])[y]) for z in logits)
    return total / len(targets)


@pytest.fixture
def compare(given, assert_same):
    def check(module, size, students=4, temperature=3.0):
        batch = given.batch(items=size[0], classes=size[1], teachers=0)
        torch.manual_seed(0)
        adapters = module.Attention(WIDTH, 2).double()
        weights = [adapters.asks.weight, adapters.answers.weight]

        def fast(*tensors):
            logits, pooled = tensors[:students], tensors[students : 2 * students]
            seen = dataclasses.replace(
                batch,
                students=tuple(
                    Outputs(z, {"pooled": h})
                    for z, h in zip(logits, pooled, strict=True)
                ),
                adapters=lambda x: torch.func.functional_call(
                    adapters,
                    {"asks.weight": tensors[-2], "answers.weight": tensors[-1]},
                    x,
                ),
            )
            strategy = module.DiversePeers(
                students=students,
                temperature=temperature,
                ce_weight=2,
                peer_weight=3,
                leader_weight=5,
            )
            # The leader's features are tapped, and not used.
            return sum(strategy.loss(seen).values()) + 0 * sum(h.sum() for h in pooled)

        def slow(*tensors):
            logits, pooled = tensors[:students], tensors[students : 2 * students]
            value = reference(
                logits, pooled[1:], *tensors[-2:], batch.targets, temperature
            )
            return value + 0 * pooled[0].sum()

        logits = [given.normal(*size, scale=2) for _ in range(students)]
        pooled = [given.normal(size[0], WIDTH) for _ in range(students)]
        assert_same(fast, slow, *logits, *pooled, *weights)

    return check


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (4, 2), (1, 1000)], ids=str)
def test_matches_the_definition(compare, size):
    compare(okddip, size)


@pytest.mark.parametrize(("students", "temperature"), [(3, 1.0), (5, 4.0)])
def test_matches_for_other_numbers_of_peers(compare, students, temperature):
    compare(okddip, (2, 4), students, temperature)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("log_softmax(dim=2)", "log_softmax(dim=1)"),
        ("log_target=True) * temperature**2", "log_target=True)"),
        ("- math.log(peers.shape[1])", "- 0"),
        ("log_q[:, :1], log_q[:, 1:]", "log_q[:, -1:], log_q[:, :-1]"),
        ("batch.students[1:]", "batch.students[:-1]"),
        ("peers[:, None])", "peers[:, None].detach())"),
    ],
)
def test_a_mistake_is_noticed(compare, right, wrong):
    with pytest.raises(AssertionError):
        compare(mutated(okddip, right, wrong), (4, 5))


def test_one_mind_has_nothing_to_learn(given):
    batch = given.batch(student_shapes={"pooled": (WIDTH,)}, teachers=0)
    same = dataclasses.replace(
        batch, students=(batch.student,) * 4, adapters=Attention(WIDTH, 2)
    )
    terms = DiversePeers().loss(same)
    assert abs(terms["peers"]) < 1e-5
    assert abs(terms["leader"]) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_everybody(given, assert_trains, dtype):
    strategy = DiversePeers()
    side = Tapped("student", {"pooled": (16,), "logits": (5,)}, nn.Identity())
    batch = given.batch(
        students=4,
        teachers=0,
        student_shapes={"pooled": (16,)},
        adapters=strategy.adapters(side, None),
        dtype=dtype,
    )
    learns = [given.students[0], *given.students[2:]]  # all but the leader's features
    assert_trains(strategy, batch, learns)


def test_finite_at_extreme_logits(given):
    logits, features = given.normal(3, 4, 5, scale=1e3), given.normal(3, 3, WIDTH)
    attention = Attention(WIDTH, 2).double()
    terms = two_level_kl(logits, attention(features * 1e3), 3.0)
    sum(terms).backward()
    assert all(torch.isfinite(value) for value in terms)
    for leaf in (logits, features, *attention.parameters()):
        assert torch.isfinite(leaf.grad).all()


def test_projections_are_an_eighth_as_wide():
    sides = {w: Tapped("s", {"pooled": (w,)}, nn.Identity()) for w in (64, 5)}
    adapters = {w: DiversePeers().adapters(side, None) for w, side in sides.items()}
    assert adapters[64].asks.weight.shape == (8, 64)
    assert adapters[5].answers.weight.shape == (1, 5)
    assert adapters[64].asks.bias is None


@pytest.mark.parametrize("bad", [{"students": 2}, {"reduction": 0}, {"temperature": 0}])
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        DiversePeers.configured(bad)
