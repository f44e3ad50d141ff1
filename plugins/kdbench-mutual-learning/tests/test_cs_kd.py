"""cs_kd: what is predicted for another item of the class is the soft target."""

import dataclasses

import pytest
import torch
from kdbench_mutual_learning import cs_kd
from kdbench_mutual_learning.cs_kd import ClassWiseSelfKD

from kdbench import Outputs, UserError
from kdbench.api import ExtraView
from kdbench.testing import mutated


def softmax(z, temperature):
    top = max(z.tolist())
    weights = [torch.exp((x - top) / temperature) for x in z]
    total = sum(weights)
    return [w / total for w in weights]


def reference(logits, others, targets, temperature):
    """2 CE + 3 T^2 KL."""
    total = 0.0
    for z, other, y in zip(logits, others, targets.tolist(), strict=True):
        p, q = softmax(other.detach(), temperature), softmax(z, temperature)
        kl = sum(a * torch.log(a / b) for a, b in zip(p, q, strict=True))
        total = total - 2 * torch.log(softmax(z, 1)[y]) + 3 * temperature**2 * kl
    return total / len(targets)


def with_view(batch, own, other):
    """The batch with these logits, and others of the same class."""
    items = len(batch.targets)
    view = ExtraView(
        inputs=batch.inputs,
        partner=torch.arange(items),
        share=torch.ones(items),
        students=(Outputs(other),),
        teachers=(),
    )
    students = (Outputs(own),)
    return dataclasses.replace(batch, students=students, views={"same_class": view})


@pytest.fixture
def compare(given, assert_same):
    def check(module, size, temperature=4.0):
        batch = given.batch(items=size[0], classes=size[1], teachers=0)
        other = given.normal(*size, scale=3)

        def fast(own):
            strategy = module.ClassWiseSelfKD(
                temperature=temperature, ce_weight=2, class_weight=3
            )
            seen = with_view(batch, own, other.to(own.dtype))
            return sum(strategy.loss(seen).values())

        assert_same(
            fast,
            lambda own: reference(own, other, batch.targets, temperature),
            given.normal(*size, scale=3),
        )

    return check


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (4, 2), (1, 1000)], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_matches_the_definition(compare, size, temperature):
    compare(cs_kd, size, temperature)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("soft_kl(logits, other, self.temperature)", "soft_kl(logits, other)"),
        ("soft_kl(logits, other", "soft_kl(other, logits"),
        ("self.class_weight * ", "-self.class_weight * "),
    ],
)
def test_a_mistake_is_noticed(compare, right, wrong):
    with pytest.raises((AssertionError, RuntimeError)):  # or no gradient at all
        compare(mutated(cs_kd, right, wrong), (4, 5))


def test_finite_at_extreme_logits(given):
    own, other = given.normal(3, 5, scale=1e3), given.normal(3, 5, scale=1e3)
    terms = ClassWiseSelfKD().loss(with_view(given.batch(items=3), own, other))
    sum(terms.values()).backward()
    assert all(torch.isfinite(value) for value in terms.values())
    assert torch.isfinite(own.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_other_item_is_a_constant(given, assert_trains, dtype):
    batch = given.batch(teachers=0, dtype=dtype)
    other = given.normal(4, 5).detach().to(dtype).requires_grad_()
    assert_trains(ClassWiseSelfKD(), with_view(batch, batch.student.logits, other))
    assert other.grad is None


def test_needs_a_view_and_no_teacher():
    strategy = ClassWiseSelfKD()
    assert strategy.views == ("same_class",)
    assert strategy.teachers == 0
    defaults = (strategy.temperature, strategy.ce_weight, strategy.class_weight)
    assert defaults == (4, 1, 1)


def test_refuses_a_temperature_of_zero():
    with pytest.raises(UserError, match="temperature must be > 0"):
        ClassWiseSelfKD.configured({"temperature": 0})
