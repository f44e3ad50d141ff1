"""logit_standardization: z-scores and KL from the paper; scale and shift are free."""

from dataclasses import replace

import pytest
import torch
from kdbench_soft_targets import logit_standardization as module
from kdbench_soft_targets.logit_standardization import LogitStandardization, zscore

from kdbench import Outputs, UserError, soft_kl
from kdbench.models.pairs import PAIRS
from kdbench.testing import mutated


def reference(student, teacher, temperature):
    def probabilities(z):
        mean = sum(z) / len(z)
        std = torch.sqrt(sum((x - mean) ** 2 for x in z) / len(z))
        weights = [torch.exp((x - mean) / std / temperature) for x in z]
        total = sum(weights)
        return [w / total for w in weights]

    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        pairs = zip(probabilities(s), probabilities(t), strict=True)
        total = total + sum(p * torch.log(p / q) for q, p in pairs)
    return temperature**2 * total / len(student)


def compare(given, assert_same, module, size, scale=3):
    batch = given.batch(items=size[0], classes=size[1])
    teacher = given.normal(*size, scale=scale).detach()

    def fast(student):
        sides = (Outputs(student),), (Outputs(teacher.to(student.dtype)),)
        own = replace(batch, students=sides[0], teachers=sides[1])
        return module.LogitStandardization().loss(own)["kd"]

    def slow(student):
        return 9 * reference(student, teacher, 2.0)

    assert_same(fast, slow, given.normal(*size, scale=scale))


@pytest.mark.parametrize("size", [(1, 3), (5, 4), (2, 1000)], ids=str)
@pytest.mark.parametrize("scale", [3, 1e3, 1e4])
def test_matches_the_definition(given, assert_same, size, scale):
    compare(given, assert_same, module, size, scale)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (
            "F.layer_norm(x, x.shape[1:], eps=VARIANCE_EPS)",
            "x - x.mean(1, keepdim=True)",
        ),
        ("F.layer_norm(x, x.shape[1:], eps=VARIANCE_EPS)", "F.layer_norm(x, x.shape)"),
        ("zscore(teacher), self", "teacher, self"),
        ("eps=VARIANCE_EPS)", "eps=VARIANCE_EPS) * (x.shape[1] - 1) / x.shape[1]"),
        ("self.kd_weight * kd", "self.ce_weight * kd"),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, right, wrong):
    with pytest.raises(AssertionError, match="not close"):
        compare(given, assert_same, mutated(module, right, wrong), (5, 4))


def test_only_the_order_is_left_of_two_classes(given):
    student, teacher = given.normal(6, 2), given.normal(6, 2)
    signs = zscore(student)
    torch.testing.assert_close(signs.abs(), torch.ones_like(signs))
    (gradient,) = torch.autograd.grad(soft_kl(signs, zscore(teacher), 2.0), student)
    assert gradient.abs().max() < 1e-6


def test_scale_and_shift_of_logits_do_not_matter(given):
    student, teacher = given.normal(3, 10), given.normal(3, 10)
    value = soft_kl(zscore(student), zscore(teacher), 2.0)
    moved = soft_kl(zscore(7 * student + 3), zscore(0.5 * teacher - 1), 2.0)
    torch.testing.assert_close(value, moved, rtol=1e-7, atol=0)


def test_equal_logits_stay_finite(given):
    student = torch.full((2, 5), 3.0, requires_grad=True)
    value = soft_kl(zscore(student), zscore(given.normal(2, 5).float()), 2.0)
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kinds", [{}, {"items": 1}, {"scale": 30}], ids=str)
def test_trains_the_student_only(given, assert_trains, dtype, kinds):
    assert_trains(LogitStandardization(), given.batch(dtype=dtype, **kinds))


def test_weights_scale_their_own_term(given):
    batch = given.batch()
    one = LogitStandardization(ce_weight=1, kd_weight=1).loss(batch)
    default = LogitStandardization().loss(batch)
    ce = torch.nn.CrossEntropyLoss()(batch.student.logits, batch.targets)
    torch.testing.assert_close(one["ce"], ce)
    torch.testing.assert_close(default["ce"], 0.1 * one["ce"])
    torch.testing.assert_close(default["kd"], 9 * one["kd"])
    hot = LogitStandardization(kd_weight=1, temperature=30).loss(batch)["kd"]
    z_s, z_t = zscore(batch.student.logits), zscore(batch.teacher.logits)
    limit = (z_s - z_t).square().mean() / 2  # equation 4 of Hinton et al.
    torch.testing.assert_close(hot, limit, rtol=5e-2, atol=0)


def test_presets_name_pairs_and_hyper_parameters():
    authors = LogitStandardization.presets["authors"]
    assert authors.keys() <= {pair.name for pair in PAIRS}
    own = {pair: LogitStandardization.configured(v) for pair, v in authors.items()}
    assert own["resnet32x4-resnet8x4"] == LogitStandardization()
    assert own["vgg13-vgg8"] == LogitStandardization(temperature=3)
    assert own["resnet110-resnet20"] == LogitStandardization(
        temperature=4, kd_weight=12
    )


def test_refuses_a_temperature_that_is_not_positive():
    with pytest.raises(UserError, match="temperature must be > 0"):
        LogitStandardization.configured({"temperature": 0})
