"""sharpened_pseudo_label: the sharpening, the Brier score, masks, weights and ramp."""

from dataclasses import replace

import pytest
import torch
from kdbench_pseudo_label import sharpened_pseudo_label
from kdbench_pseudo_label.sharpened_pseudo_label import (
    SharpenedPseudoLabel,
    brier_scores,
)

from kdbench import Outputs, UserError
from kdbench.testing import mutated


def softmax(z):
    top = max(z.tolist())
    weights = [torch.exp(x - top) for x in z]
    total = sum(weights)
    return [w / total for w in weights]


def reference(student, teacher, targets, labelled, temperature=0.5):
    """CE of the labelled + 75 times the Brier score of the others, item by item."""
    with_label, without = [], []
    for s, t, y, known in zip(student, teacher, targets, labelled, strict=True):
        if known:
            top = max(s.tolist())
            with_label.append(
                torch.log(sum(torch.exp(x - top) for x in s)) + top - s[y]
            )
            continue
        powers = [float(p) ** (1 / temperature) for p in softmax(t)]
        total = sum(powers)
        q = [p / total for p in powers]
        without.append(sum((a - b) ** 2 for a, b in zip(softmax(s), q)) / len(q))  # noqa: B905
    zero = 0 * student.sum()
    first = sum(with_label) / len(with_label) if with_label else zero
    second = sum(without) / len(without) if without else zero
    return first + 75 * second


LABELLED = {
    "some": [True, False, False, True, False],
    "all": [True] * 5,
    "none": [False] * 5,
    "one item, labelled": [True],
    "one item, not labelled": [False],
}


def compare(given, assert_same, classes, which, strategy=SharpenedPseudoLabel, scale=2):
    labelled = torch.tensor(LABELLED[which])
    size = len(labelled), classes
    batch = given.batch(items=size[0], classes=classes, labelled=labelled, scale=scale)
    teacher = given.normal(*size, scale=scale).detach()

    def fast(student):
        teachers = (Outputs(teacher.to(student.dtype)),)
        own = replace(batch, students=(Outputs(student),), teachers=teachers)
        return sum(strategy().loss(own).values())

    assert_same(
        fast,
        lambda s: reference(s, teacher, batch.targets, labelled),
        given.normal(*size, scale=scale),
    )


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("which", LABELLED)
def test_matches_the_definition(given, assert_same, classes, which):
    compare(given, assert_same, classes, which)


def test_matches_the_definition_at_extreme_logits(given, assert_same):
    compare(given, assert_same, 10, "some", scale=1e3)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("teacher.detach()) / temperature", "teacher.detach()) * temperature"),
        (".square().mean(dim=1)", ".square().sum(dim=1)"),
        ("at_least_float32(student).softmax(dim=1)", "at_least_float32(student)"),
        ("masked_mean(brier, ~labelled)", "masked_mean(brier, labelled)"),
        ("masked_mean(ce, labelled)", "ce.mean()"),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, old, new):
    wrong = mutated(sharpened_pseudo_label, old, new).SharpenedPseudoLabel
    with pytest.raises(AssertionError):
        compare(given, assert_same, 10, "some", wrong)


def test_sharpening_brings_out_the_likely_class():
    """Probabilities 0.8 and 0.2 become 16/17 and 1/17 at temperature 0.5."""
    teacher = torch.tensor([[0.8, 0.2]]).log()
    student = torch.tensor([[16.0, 1.0]]).log()
    torch.testing.assert_close(
        brier_scores(student, teacher, 0.5), torch.zeros(1), atol=1e-12, rtol=0
    )
    wrong = torch.tensor([(0.8 - 0.5) ** 2])
    torch.testing.assert_close(brier_scores(torch.zeros(1, 2), teacher, 1.0), wrong)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_only(given, assert_trains, dtype):
    labelled = torch.tensor([True, False, False, True])
    assert_trains(SharpenedPseudoLabel(), given.batch(labelled=labelled, dtype=dtype))


def test_weights_and_ramp_scale_their_own_term(given):
    labelled = torch.tensor([True, False, False, True])
    batch = given.batch(labelled=labelled, progress=0.05)
    one = SharpenedPseudoLabel(pseudo_weight=1, ramp=0).loss(batch)
    two = SharpenedPseudoLabel(ce_weight=2, pseudo_weight=3, ramp=0.2).loss(batch)
    torch.testing.assert_close(two["ce"], 2 * one["ce"])
    torch.testing.assert_close(two["pseudo"], 3 * 0.25 * one["pseudo"])
    default = SharpenedPseudoLabel().loss(batch)
    torch.testing.assert_close(default["pseudo"], 75 * one["pseudo"])


@pytest.mark.parametrize(
    "bad", [{"label_fraction": 0}, {"sharpen_temperature": 0}, {"ramp": 2}]
)
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        SharpenedPseudoLabel.configured(bad)
