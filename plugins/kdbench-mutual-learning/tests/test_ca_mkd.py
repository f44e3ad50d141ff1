"""ca_mkd: teachers weighed item by item by how sure they are of the label."""

import dataclasses

import pytest
import torch
from kdbench_mutual_learning import ca_mkd
from kdbench_mutual_learning.ca_mkd import ConfidenceAwareKD, confidence

from kdbench import Outputs, UserError
from kdbench.testing import mutated


def softmax(z, temperature):
    top = max(z.tolist())
    weights = [torch.exp((x - top) / temperature) for x in z]
    total = sum(weights)
    return [w / total for w in weights]


def reference(student, teachers, targets, temperature):
    """2 CE + 3 T^2 sum_k w_k KL(p_k || p_s)."""
    total = 0.0
    for b, y in enumerate(targets.tolist()):
        ce = [-torch.log(softmax(t[b], 1)[y]) for t in teachers]
        mass = sum(torch.exp(x) for x in ce)
        q = softmax(student[b], temperature)
        for t, own in zip(teachers, ce, strict=True):
            w = (1 - torch.exp(own) / mass) / (len(teachers) - 1)
            p = softmax(t[b], temperature)
            kl = sum(a * torch.log(a / b) for a, b in zip(p, q, strict=True))
            total = total + 3 * temperature**2 * w * kl
        total = total - 2 * torch.log(softmax(student[b], 1)[y])
    return total / len(targets)


@pytest.fixture
def compare(given, assert_same):
    def check(module, size, number=3, temperature=4.0):
        batch = given.batch(items=size[0], classes=size[1])
        teachers = [given.normal(*size, scale=2).detach() for _ in range(number)]

        def fast(student):
            seen = dataclasses.replace(
                batch,
                students=(Outputs(student),),
                teachers=tuple(Outputs(t.to(student.dtype)) for t in teachers),
            )
            strategy = module.ConfidenceAwareKD(
                teachers=number, temperature=temperature, ce_weight=2, kd_weight=3
            )
            return sum(strategy.loss(seen).values())

        assert_same(
            fast,
            lambda s: reference(s, teachers, batch.targets, temperature),
            given.normal(*size, scale=3),
        )

    return check


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (4, 2), (1, 1000)], ids=str)
@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_matches_the_definition(compare, size, number, temperature):
    compare(ca_mkd, size, number, temperature)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(1 - ce.softmax(dim=0))", "ce.softmax(dim=0)"),
        ("ce.softmax(dim=0)", "ce.softmax(dim=1)"),
        ("/ (len(teachers) - 1)", "/ len(teachers)"),
        (".mean() * temperature**2", ".mean()"),
    ],
)
def test_a_mistake_is_noticed(compare, right, wrong):
    with pytest.raises(AssertionError):
        compare(mutated(ca_mkd, right, wrong), (4, 5))


def test_weights_add_up_and_prefer_the_surest(given):
    teachers = torch.stack([given.normal(6, 4, scale=3) for _ in range(3)])
    targets = given.classes(6, 4)
    weights = confidence(teachers, targets)
    torch.testing.assert_close(weights.sum(0), torch.ones_like(weights[0]))
    sure = teachers.softmax(2)[:, torch.arange(6), targets]
    assert torch.equal(weights.argmax(0), sure.argmax(0))
    # Two teachers that know the label, one that is e^1000 times worse: it has no say.
    teachers = torch.tensor([[[1e3, 0.0]], [[1e3, 0.0]], [[0.0, 1e3]]])
    weights = confidence(teachers, torch.tensor([0]))
    torch.testing.assert_close(weights[:, 0], torch.tensor([0.5, 0.5, 0.0]))


def test_finite_at_extreme_logits(given):
    batch = given.batch(items=3, teachers=3, scale=1e3)
    terms = ConfidenceAwareKD().loss(batch)
    sum(terms.values()).backward()
    assert all(torch.isfinite(value) for value in terms.values())
    assert torch.isfinite(given.students[0].grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_only(given, assert_trains, dtype):
    assert_trains(ConfidenceAwareKD(), given.batch(teachers=3, dtype=dtype))


@pytest.mark.parametrize("bad", [{"teachers": 1}, {"temperature": 0}])
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        ConfidenceAwareKD.configured(bad)
