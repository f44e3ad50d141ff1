"""dkd: both KL terms from the paper, its identity with kd, its warm-up."""

import math
from dataclasses import replace

import pytest
import torch
from kdbench_soft_targets import dkd, true_class
from kdbench_soft_targets.dkd import DecoupledKD, dkd_losses

from kdbench import Outputs, UserError, soft_kl
from kdbench.models.pairs import PAIRS
from kdbench.testing import mutated


def softmax(z, temperature):
    top = max(z.tolist())
    weights = [torch.exp((x - top) / temperature) for x in z]
    total = sum(weights)
    return [w / total for w in weights]


def kl(p, q):
    return sum(a * torch.log(a / b) for a, b in zip(p, q, strict=True))


def reference(student, teacher, targets, temperature):
    """CE + T^2 (TCKD + 8 NCKD), from probabilities as the paper writes them."""
    total = 0.0
    for s, t, y in zip(student, teacher, targets.tolist(), strict=True):
        p, q = softmax(t, temperature), softmax(s, temperature)
        rest_p = sum(x for c, x in enumerate(p) if c != y)
        rest_q = sum(x for c, x in enumerate(q) if c != y)
        within_p = [x / rest_p for c, x in enumerate(p) if c != y]
        within_q = [x / rest_q for c, x in enumerate(q) if c != y]
        both = kl([p[y], rest_p], [q[y], rest_q]) + 8 * kl(within_p, within_q)
        total = total - torch.log(softmax(s, 1)[y]) + temperature**2 * both
    return total / len(student)


def compare(given, assert_same, module, size, temperature=4.0):
    batch = given.batch(items=size[0], classes=size[1])
    teacher = given.normal(*size, scale=3).detach()
    strategy = module.DecoupledKD(temperature=temperature)

    def fast(student):
        sides = (Outputs(student),), (Outputs(teacher.to(student.dtype)),)
        terms = strategy.loss(replace(batch, students=sides[0], teachers=sides[1]))
        return sum(terms.values())

    def slow(student):
        return reference(student, teacher, batch.targets, temperature)

    assert_same(fast, slow, given.normal(*size, scale=3))


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (5, 2), (2, 1000)], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_matches_the_definition(given, assert_same, size, temperature):
    compare(given, assert_same, dkd, size, temperature)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (" * temperature**2", ""),
        ("soft_kl(s, t)", "soft_kl(t, s)"),
        ("self.non_target_weight * non_target", "self.target_weight * non_target"),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, right, wrong):
    with pytest.raises(AssertionError, match="not close"):
        compare(given, assert_same, mutated(dkd, right, wrong), (5, 4))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("logits.gather(1, targets[:, None]), without", "logits[:, :1], without"),
        ("dim=1), rest", "dim=1), logits"),
        ("rest.logsumexp", "rest.amax"),
    ],
)
def test_a_wrong_split_is_noticed(given, assert_same, monkeypatch, right, wrong):
    monkeypatch.setattr(dkd, "apart", mutated(true_class, right, wrong).apart)
    with pytest.raises(AssertionError, match="not close"):
        compare(given, assert_same, dkd, (5, 4))


@pytest.mark.parametrize("classes", [2, 7])
def test_parts_add_up_to_soft_targets(given, classes):
    """Equation 6: KD = TCKD + (1 - p_t) NCKD, item by item."""
    for _ in range(5):
        student, teacher = given.normal(1, classes), given.normal(1, classes)
        y = given.classes(1, classes)
        target, non_target = dkd_losses(student, teacher, y, 4.0)
        rest = 1 - torch.softmax(teacher / 4, dim=1)[0, y]
        whole = target + rest.squeeze() * non_target
        torch.testing.assert_close(whole, soft_kl(student, teacher, 4.0))


@pytest.mark.parametrize("target", [0, 1, 2])
def test_finite_at_extreme_logits(target):
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0.0]])
    both = dkd_losses(student, teacher, torch.tensor([target]), 4.0)
    (gradient,) = torch.autograd.grad(sum(both), student)
    assert all(torch.isfinite(x) for x in both)
    assert torch.isfinite(gradient).all()
    if target == 1:  # the teacher is sure, the student gives e^-5000; the rest agrees
        torch.testing.assert_close(both[0], torch.tensor(16 * 5000.0))
        torch.testing.assert_close(both[1], torch.tensor(16 * 2500.0))


def test_warm_up_is_linear_over_whole_epochs(given):
    strategy = DecoupledKD(warmup_epochs=20)
    factors = {0.0: 1 / 20, 0.99: 1 / 20, 1.0: 2 / 20, 18.5: 19 / 20, 19.0: 1, 200.0: 1}
    assert all(math.isclose(strategy.warm_up(e), f) for e, f in factors.items())
    assert DecoupledKD(warmup_epochs=0).warm_up(0.0) == 1
    batch = given.batch(epoch=3.5)
    warm, full = strategy.loss(batch), DecoupledKD(warmup_epochs=0).loss(batch)
    torch.testing.assert_close(warm["ce"], full["ce"])
    torch.testing.assert_close(warm["target"], full["target"] * 4 / 20)
    torch.testing.assert_close(warm["non_target"], full["non_target"] * 4 / 20)


@pytest.mark.parametrize("scale", [1, 30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_only(given, assert_trains, dtype, scale):
    assert_trains(DecoupledKD(), given.batch(dtype=dtype, scale=scale))


def test_weights_scale_their_own_term(given):
    batch = given.batch()
    one = DecoupledKD(non_target_weight=1).loss(batch)
    two = DecoupledKD(ce_weight=2, target_weight=3, non_target_weight=5).loss(batch)
    torch.testing.assert_close(two["ce"], 2 * one["ce"])
    torch.testing.assert_close(two["target"], 3 * one["target"])
    torch.testing.assert_close(two["non_target"], 5 * one["non_target"])


def test_presets_name_pairs_and_hyper_parameters():
    authors = DecoupledKD.presets["authors"]
    assert authors.keys() <= {pair.name for pair in PAIRS}
    own = {pair: DecoupledKD.configured(v) for pair, v in authors.items()}
    assert own["resnet32x4-resnet8x4"] == DecoupledKD()
    assert own["vgg13-vgg8"] == DecoupledKD(non_target_weight=6)
    assert own["resnet56-resnet20"] == DecoupledKD(non_target_weight=2)


@pytest.mark.parametrize("bad", [{"temperature": 0}, {"warmup_epochs": -1}])
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        DecoupledKD.configured(bad)
