"""confident_pseudo_label: masks, means, threshold and ramp, item by item."""

import pytest
import torch
from kdbench_pseudo_label import confident_pseudo_label
from kdbench_pseudo_label.confident_pseudo_label import (
    ConfidentPseudoLabel,
    confident_losses,
)
from kdbench_pseudo_label.semi_supervised import ramp_up

from kdbench import UserError
from kdbench.testing import mutated


def log_softmax(z):
    top = max(z.tolist())
    total = torch.log(sum(torch.exp(x - top) for x in z)) + top
    return [x - total for x in z]


def reference(student, teacher, targets, labelled, threshold):
    """Labelled term + 7 * unlabelled term."""
    with_label, without = [], []
    for b in range(len(student)):
        log_p = log_softmax(student[b])
        if labelled[b]:
            with_label.append(-log_p[targets[b]])
            continue
        p = [float(x.exp()) for x in log_softmax(teacher[b])]
        confident = max(p) >= threshold
        without.append(-log_p[p.index(max(p))] * confident)
    zero = 0 * student.sum()
    first = sum(with_label) / len(with_label) if with_label else zero
    second = sum(without) / len(without) if without else zero
    return first + 7 * second


LABELLED = {
    "some": [True, False, False, True, False, False],
    "all": [True] * 6,
    "none": [False] * 6,
    "one item, labelled": [True],
    "one item, not labelled": [False],
}


def compare(given, assert_same, classes, which, losses=confident_losses, scale=3):
    labelled = torch.tensor(LABELLED[which])
    items = len(labelled)
    teacher = given.normal(items, classes, scale=scale).detach()
    targets = given.classes(items, classes)
    threshold = 0.1 if classes == 1000 else 0.9

    def fast(student):
        first, second = losses(
            student, teacher.to(student.dtype), targets, labelled, threshold
        )
        return first + 7 * second

    assert_same(
        fast,
        lambda s: reference(s, teacher, targets, labelled, threshold),
        given.normal(items, classes, scale=scale),
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
        ("* (confidence >= least)", ""),
        ("confident, ~labelled", "confident, ~labelled & (confidence >= least)"),
        ("targets.where(labelled, label)", "label"),
        (">= least", "<= least"),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, old, new):
    wrong = mutated(confident_pseudo_label, old, new).confident_losses
    with pytest.raises(AssertionError):
        compare(given, assert_same, 10, "some", wrong)


def test_only_confident_items_count_but_all_are_averaged_over():
    """Sohn et al., equation 4: the denominator is the unlabelled batch."""
    teacher = torch.tensor([[9.0, 0.0], [0.1, 0.0], [0.0, 0.1], [0.0, 0.2]])
    student = torch.zeros(4, 2)
    none = torch.zeros(4, dtype=torch.bool)
    losses = confident_losses(student, teacher, none.long(), none, 0.95)
    assert losses[0] == 0
    torch.testing.assert_close(losses[1], torch.tensor(2.0).log() / 4)


def test_hidden_labels_are_not_read(given):
    labelled = torch.tensor([True, False, False, True])
    student, teacher = given.normal(4, 5), given.normal(4, 5)
    targets = given.classes(4, 5)
    hidden = torch.where(labelled, targets, -1)
    for a, b in zip(
        confident_losses(student, teacher, targets, labelled, 0.2),
        confident_losses(student, teacher, hidden, labelled, 0.2),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_finite_at_extreme_logits():
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    labelled = torch.tensor([True, False])
    losses = confident_losses(
        logits, logits.detach().flip(0), torch.tensor([1, 0]), labelled, 0.95
    )
    (gradient,) = torch.autograd.grad(sum(losses), logits)
    torch.testing.assert_close(torch.stack(losses), torch.tensor([2e4, 2e4]))
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_only(given, assert_trains, dtype):
    labelled = torch.tensor([True, False, False, True])
    batch = given.batch(labelled=labelled, scale=5, dtype=dtype)
    assert_trains(ConfidentPseudoLabel(threshold=0.3), batch)


def test_weights_and_ramp_scale_their_own_term(given):
    labelled = torch.tensor([True, False, False, True])
    batch = given.batch(labelled=labelled, progress=0.05)
    logits = batch.student.logits, batch.teacher.logits
    first, second = confident_losses(*logits, batch.targets, labelled, 0.3)
    assert second > 0
    strategy = ConfidentPseudoLabel(
        threshold=0.3, ce_weight=2, pseudo_weight=3, ramp=0.2
    )
    terms = strategy.loss(batch)
    torch.testing.assert_close(terms["ce"], 2 * first)
    torch.testing.assert_close(terms["pseudo"], 3 * 0.25 * second)


def test_ramp():
    assert [ramp_up(0.2, x) for x in (0.0, 0.1, 0.2, 1.0)] == [0, 0.5, 1, 1]
    assert ramp_up(0, 0.0) == 1


def test_label_fraction_is_what_the_engine_reads():
    assert ConfidentPseudoLabel().label_fraction == 0.1
    assert ConfidentPseudoLabel.configured({"label_fraction": 1}).label_fraction == 1


@pytest.mark.parametrize(
    "bad",
    [{"label_fraction": 0}, {"label_fraction": 2}, {"threshold": 1.1}, {"ramp": -1}],
)
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        ConfidentPseudoLabel.configured(bad)
