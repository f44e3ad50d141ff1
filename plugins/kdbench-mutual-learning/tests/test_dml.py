"""dml: cross-entropy and mean KL from the others, for two peers and more."""

import dataclasses

import pytest
import torch
from kdbench_mutual_learning import dml
from kdbench_mutual_learning.dml import MutualLearning, mutual_loss
from torch import nn

from kdbench import Outputs, UserError
from kdbench.testing import mutated

SIZES = [(1, 2), (1, 10), (4, 2), (1, 1000)]


def log_softmax(z):
    top = max(z.tolist())
    total = torch.log(sum(torch.exp(x - top) for x in z)) + top
    return [x - total for x in z]


def reference(peers, targets, ce_weight, mutual_weight):
    total = 0.0
    for b, y in enumerate(targets.tolist()):
        log_p = [log_softmax(peer[b]) for peer in peers]
        for k, mine in enumerate(log_p):
            others = [other for j, other in enumerate(log_p) if j != k]
            kl = sum(
                o.detach().exp() * (o.detach() - m)
                for other in others
                for o, m in zip(other, mine, strict=True)
            )
            total = total - ce_weight * mine[y] + mutual_weight * kl / len(others)
    return total / len(targets)


@pytest.fixture
def compare(given, assert_same):
    """The module's loss against the reference, at weights 2 and 3."""

    def check(module, size, peers):
        batch = given.batch(items=size[0], classes=size[1], students=1, teachers=0)

        def fast(*logits):
            seen = dataclasses.replace(batch, students=tuple(map(Outputs, logits)))
            strategy = module.MutualLearning(
                students=peers, ce_weight=2, mutual_weight=3
            )
            return sum(strategy.loss(seen).values())

        assert_same(
            fast,
            lambda *logits: reference(logits, batch.targets, 2, 3),
            *(given.normal(*size, scale=2) for _ in range(peers)),
        )

    return check


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("peers", [2, 3])
def test_matches_the_definition(compare, size, peers):
    compare(dml, size, peers)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("/ (len(peers) - 1)", "/ len(peers)"),
        ("soft_kl(a, b)", "soft_kl(b, a)"),
        ("sum(each[1:], each[0])", "each[0]"),
    ],
)
def test_a_mistake_is_noticed(compare, right, wrong):
    with pytest.raises(AssertionError):
        compare(mutated(dml, right, wrong), (4, 5), 3)


def test_finite_at_extreme_logits():
    a = torch.tensor([[1e4, -1e4]], requires_grad=True)
    b = torch.tensor([[-1e4, 1e4]], requires_grad=True)
    mutual = mutual_loss([a, b])
    torch.testing.assert_close(mutual, torch.tensor(4e4))
    for gradient in torch.autograd.grad(mutual, (a, b)):
        assert torch.isfinite(gradient).all()


def test_a_peer_is_a_constant_to_the_others(given):
    """Without cross-entropy, each gradient is p_k - mean of the others' p."""
    peers = [given.normal(1, 5) for _ in range(3)]
    mutual = mutual_loss(peers)
    p = torch.stack([peer.softmax(1) for peer in peers])
    for k, gradient in enumerate(torch.autograd.grad(mutual, peers)):
        others = (p.sum(0) - p[k]) / 2
        torch.testing.assert_close(gradient, (p[k] - others).detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("students", [2, 3])
def test_trains_all_peers(given, assert_trains, dtype, students):
    batch = given.batch(students=students, teachers=0, dtype=dtype)
    assert_trains(MutualLearning(students=students), batch)


def test_weights_scale_their_own_term(given):
    batch = given.batch(students=2, teachers=0)
    one = MutualLearning().loss(batch)
    two = MutualLearning(ce_weight=2, mutual_weight=5).loss(batch)
    torch.testing.assert_close(two["ce"], 2 * one["ce"])
    torch.testing.assert_close(two["mutual"], 5 * one["mutual"])
    each = [nn.CrossEntropyLoss()(s.logits, batch.targets) for s in batch.students]
    torch.testing.assert_close(one["ce"], sum(each))


def test_asks_for_peers_and_no_teacher():
    strategy = MutualLearning.configured({"students": 4})
    assert strategy.students == 4
    assert strategy.teachers == 0


def test_refuses_a_single_peer():
    with pytest.raises(UserError, match="students must be >= 2"):
        MutualLearning.configured({"students": 1})
