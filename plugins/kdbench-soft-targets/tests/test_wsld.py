"""wsld: soft labels weighted by the ratio of the label losses, from the paper."""

from dataclasses import replace

import pytest
import torch
from kdbench_soft_targets import wsld
from kdbench_soft_targets.wsld import WeightedSoftLabels, weighted_soft_labels

from kdbench import Outputs, UserError
from kdbench.models.pairs import PAIRS
from kdbench.testing import mutated


def softmax(z, temperature):
    top = max(z.tolist())
    weights = [torch.exp((x - top) / temperature) for x in z]
    total = sum(weights)
    return [w / total for w in weights]


def reference(student, teacher, targets, temperature, kd_weight):
    total = 0.0
    for s, t, y in zip(student, teacher, targets.tolist(), strict=True):
        label = -torch.log(softmax(s, 1)[y])
        weight = 1 - torch.exp(label.detach() / torch.log(softmax(t, 1)[y]))
        p, q = softmax(t, temperature), softmax(s, temperature)
        soft = -sum(a * torch.log(b) for a, b in zip(p, q, strict=True))
        total = total + label + kd_weight * temperature**2 * weight * soft
    return total / len(student)


def compare(given, assert_same, module, size, temperature=2.0):
    batch = given.batch(items=size[0], classes=size[1])
    teacher = given.normal(*size, scale=3).detach()
    strategy = module.WeightedSoftLabels(temperature=temperature)

    def fast(student):
        sides = (Outputs(student),), (Outputs(teacher.to(student.dtype)),)
        terms = strategy.loss(replace(batch, students=sides[0], teachers=sides[1]))
        return sum(terms.values())

    def slow(student):
        return reference(student, teacher, batch.targets, temperature, 2.25)

    assert_same(fast, slow, given.normal(*size, scale=3))


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (5, 2), (2, 1000)], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_matches_the_definition(given, assert_same, size, temperature):
    compare(given, assert_same, wsld, size, temperature)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("temperature**2 * ", ""),
        ("-torch.expm1(-ratio)", "torch.exp(-ratio)"),
        ("of_student / of_teacher", "of_teacher / of_student"),
        ("(student.detach(), targets", "(student, targets"),
        ("(student.detach(), targets", "(student.detach() / temperature, targets"),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, right, wrong):
    with pytest.raises(AssertionError, match="not close"):
        compare(given, assert_same, mutated(wsld, right, wrong), (5, 4))


def test_finite_at_extreme_logits(given):
    student = given.normal(20, 5, scale=1e3).float().detach().requires_grad_()
    teacher, targets = given.normal(20, 5, scale=1e3).float(), given.classes(20, 5)
    value = weighted_soft_labels(student, teacher, targets, 2.0)
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_the_weight_where_a_label_loss_is_zero():
    sure, unsure = torch.tensor([[1e4, 0.0]]), torch.tensor([[0.3, 0.0]])
    label = torch.tensor([0])
    soft = torch.nn.functional.cross_entropy
    both = [
        weighted_soft_labels(unsure, sure, label, 1.0) / soft(unsure, sure.softmax(1)),
        weighted_soft_labels(sure, unsure, label, 1.0) / soft(sure, unsure.softmax(1)),
        weighted_soft_labels(sure, sure, label, 1.0),
    ]
    assert [x.item() for x in both] == [1, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_only(given, assert_trains, dtype):
    assert_trains(WeightedSoftLabels(), given.batch(dtype=dtype))


def test_weights_scale_their_own_term(given):
    batch = given.batch()
    one = WeightedSoftLabels(kd_weight=1).loss(batch)
    two = WeightedSoftLabels(ce_weight=3).loss(batch)
    torch.testing.assert_close(two["ce"], 3 * one["ce"])
    torch.testing.assert_close(two["kd"], 2.25 * one["kd"])


def test_presets_name_pairs_and_hyper_parameters():
    authors = WeightedSoftLabels.presets["authors"]
    assert authors.keys() <= {pair.name for pair in PAIRS}
    own = {pair: WeightedSoftLabels.configured(v) for pair, v in authors.items()}
    assert own["resnet56-resnet20"] == WeightedSoftLabels(temperature=4)
    assert own["resnet34-resnet18"] == WeightedSoftLabels(kd_weight=2.5)


@pytest.mark.parametrize("bad", [{"temperature": 0}, {"kd_weight": -1}])
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        WeightedSoftLabels.configured(bad)
