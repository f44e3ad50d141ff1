"""kdcl: the peers' smallest logits relative to the true class as a soft target."""

import dataclasses

import pytest
import torch
from kdbench_mutual_learning import kdcl
from kdbench_mutual_learning.kdcl import CollaborativeLearning, min_logit

from kdbench import Outputs, UserError
from kdbench.testing import mutated


def softmax(z, temperature):
    top = max(float(x.detach()) for x in z)
    weights = [torch.exp((x - top) / temperature) for x in z]
    total = sum(weights)
    return [w / total for w in weights]


def reference(peers, targets, temperature, ce_weight, kd_weight):
    total = 0.0
    for b, y in enumerate(targets.tolist()):
        rows = [peer[b] for peer in peers]
        classes = range(len(rows[0]))
        target = [min((z[c] - z[y]).detach() for z in rows) for c in classes]
        p = softmax(target, temperature)
        for z in rows:
            q = softmax(z, temperature)
            kl = sum(a * torch.log(a / b) for a, b in zip(p, q, strict=True))
            ce = -torch.log(softmax(z, 1)[y])
            total = total + ce_weight * ce + kd_weight * temperature**2 * kl
    return total / len(targets)


@pytest.fixture
def compare(given, assert_same):
    """The module's loss against the reference, at weights 2 and 3."""

    def check(module, size, peers, temperature=2.0):
        batch = given.batch(items=size[0], classes=size[1], teachers=0)

        def fast(*logits):
            seen = dataclasses.replace(batch, students=tuple(map(Outputs, logits)))
            strategy = module.CollaborativeLearning(
                students=peers, temperature=temperature, ce_weight=2, kd_weight=3
            )
            return sum(strategy.loss(seen).values())

        assert_same(
            fast,
            lambda *logits: reference(logits, batch.targets, temperature, 2, 3),
            *(given.normal(*size, scale=2) for _ in range(peers)),
        )

    return check


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (4, 2), (1, 1000)], ids=str)
@pytest.mark.parametrize("peers", [2, 3])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_matches_the_definition(compare, size, peers, temperature):
    compare(kdcl, size, peers, temperature)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (".amin(dim=0)", ".amax(dim=0)"),
        ("stacked - stacked.gather(2, true)", "stacked"),
        ("stacked.gather(2, true)).amin(dim=0)", "stacked.amax(2, True)).amin(dim=0)"),
        ("soft_kl(peer, target, self.temperature)", "soft_kl(peer, target)"),
        ("torch.stack(kd).sum()", "torch.stack(kd).mean()"),
    ],
)
def test_a_mistake_is_noticed(compare, right, wrong):
    with pytest.raises(AssertionError):
        compare(mutated(kdcl, right, wrong), (4, 5), 2)


def test_the_target_by_hand():
    """Each peer is surest against another class; the target is sure against both."""
    peers = [torch.tensor([[1.0, 0.0, -3.0]]), torch.tensor([[2.0, -4.0, 1.0]])]
    target = min_logit(peers, torch.tensor([0]))
    torch.testing.assert_close(target, torch.tensor([[0.0, -6.0, -4.0]]))


def test_finite_at_extreme_logits(given):
    batch = given.batch(items=3, students=2, teachers=0, scale=1e3)
    terms = CollaborativeLearning().loss(batch)
    sum(terms.values()).backward()
    assert all(torch.isfinite(value) for value in terms.values())
    assert all(torch.isfinite(leaf.grad).all() for leaf in given.students)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("students", [2, 3])
def test_trains_all_peers(given, assert_trains, dtype, students):
    batch = given.batch(students=students, teachers=0, dtype=dtype)
    assert_trains(CollaborativeLearning(students=students), batch)


@pytest.mark.parametrize("bad", [{"students": 1}, {"temperature": 0}])
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        CollaborativeLearning.configured(bad)
