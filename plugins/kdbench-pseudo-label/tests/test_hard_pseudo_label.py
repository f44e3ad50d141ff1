"""hard_pseudo_label: cross-entropy to the teacher's arg-max."""

from dataclasses import replace

import pytest
import torch
from kdbench_pseudo_label import hard_pseudo_label
from kdbench_pseudo_label.hard_pseudo_label import HardPseudoLabel, pseudo_labels
from torch import nn

from kdbench import Outputs, Task, UserError, label_loss
from kdbench.testing import mutated


def reference(student, teacher):
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        label = max(range(len(t)), key=lambda c: float(t[c]))
        top = max(s.tolist())
        total = total + torch.log(sum(torch.exp(x - top) for x in s)) + top - s[label]
    return total / len(student)


def compare(given, assert_same, size, scale, strategy=HardPseudoLabel):
    batch = given.batch(items=size[0], classes=size[1], scale=scale)

    def fast(student):
        own = replace(batch, students=(Outputs(student),))
        return strategy(ce_weight=2).loss(own)["pseudo"]

    assert_same(
        fast,
        lambda s: reference(s, batch.teacher.logits.detach()),
        given.normal(*size, scale=scale),
    )


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (5, 2), (2, 1000)], ids=str)
@pytest.mark.parametrize("scale", [3, 1e4])
def test_matches_the_definition(given, assert_same, size, scale):
    compare(given, assert_same, size, scale)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("teacher.argmax(dim=1)", "teacher.argmin(dim=1)"),
        ("self.pseudo_weight * pseudo}", "self.ce_weight * pseudo}"),
        (
            "pseudo_labels(task, batch.teacher.logits))\n        terms",
            "batch.targets)\n        terms",
        ),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, old, new):
    wrong = mutated(hard_pseudo_label, old, new).HardPseudoLabel
    with pytest.raises(AssertionError):
        compare(given, assert_same, (5, 10), 3, wrong)


def test_trains_the_student_only(given, assert_trains):
    assert_trains(HardPseudoLabel(), given.batch())
    assert_trains(HardPseudoLabel(ce_weight=1), given.batch(items=1))


def test_weights_scale_their_own_term(given):
    batch = given.batch()
    said = pseudo_labels(batch.task, batch.teacher.logits)
    pseudo = label_loss(batch.task, batch.student.logits, said)
    assert HardPseudoLabel().loss(batch) == {"pseudo": pseudo}
    terms = HardPseudoLabel(ce_weight=2, pseudo_weight=3).loss(batch)
    torch.testing.assert_close(terms["pseudo"], 3 * pseudo)
    ce = nn.CrossEntropyLoss()(batch.student.logits, batch.targets)
    torch.testing.assert_close(terms["ce"], 2 * ce)


def test_the_labels_are_not_read_by_default(given):
    batch = given.batch()
    before = HardPseudoLabel().loss(batch)["pseudo"].item()
    batch.targets.fill_(0)
    assert HardPseudoLabel().loss(batch)["pseudo"].item() == before


def test_bfloat16(given, assert_trains):
    assert_trains(HardPseudoLabel(), given.batch(dtype=torch.bfloat16, scale=5))


def test_refuses_a_negative_weight():
    with pytest.raises(UserError, match="pseudo_weight must be >= 0"):
        HardPseudoLabel.configured({"pseudo_weight": -1})


def test_a_pseudo_label_of_numbers_is_the_teachers_number(given, assert_trains):
    task = Task(kind="regression", outputs=2)
    batch = given.batch(task=task)
    terms = HardPseudoLabel(ce_weight=0.5, pseudo_weight=2).loss(batch)
    student, teacher = batch.student.logits, batch.teacher.logits
    pseudo = (student - teacher).square().sum().item() / student.numel()
    label = (student - batch.targets).square().sum().item() / student.numel()
    assert terms["pseudo"].item() == pytest.approx(2 * pseudo)
    assert terms["ce"].item() == pytest.approx(0.5 * label)
    assert_trains(HardPseudoLabel(), batch)


def test_a_target_is_the_teachers_label_and_the_given_one(given):
    batch = given.batch(items=6, classes=3)
    said = torch.nn.functional.one_hot(batch.teacher.logits.argmax(1), 3)
    given_labels = torch.nn.functional.one_hot(batch.targets, 3)
    target = HardPseudoLabel(ce_weight=1, pseudo_weight=3).target(batch)
    torch.testing.assert_close(target, (given_labels + 3 * said) / 4)
    with pytest.raises(ValueError, match="nothing to learn"):
        HardPseudoLabel(ce_weight=0, pseudo_weight=0).target(batch)
