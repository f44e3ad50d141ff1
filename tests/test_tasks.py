"""Tasks: their losses, their heads, and the number that students are ranked by."""

from __future__ import annotations

import pytest
import torch

from kdbench.tasks import Head, Task, headline_of, label_loss, label_target

NUMBERS = Task(kind="regression", outputs=2, unit="metres")
HEADS = Task.several(
    Head(name="size", task=NUMBERS, weight=0.5),
    Head(name="kind", task=Task(outputs=3)),
)


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    numbers = torch.randn(7, 2, generator=generator)
    classes = torch.randint(3, (7,), generator=generator)
    return outputs, numbers, classes


def squares(outputs, numbers):
    total = 0.0
    for row, wanted in zip(outputs.tolist(), numbers.tolist(), strict=True):
        total += sum((a - b) ** 2 for a, b in zip(row, wanted, strict=True))
    return total / numbers.numel()


def surprises(logits, classes):
    total = 0.0
    for row, wanted in zip(logits, classes.tolist(), strict=True):
        total -= (row[wanted].exp() / row.exp().sum()).log().item()
    return total / len(classes)


def test_the_label_loss_of_each_task(case):
    outputs, numbers, classes = case
    error = label_loss(NUMBERS, outputs[:, :2], numbers)
    assert error.item() == pytest.approx(squares(outputs[:, :2], numbers))
    ce = label_loss(Task(outputs=3), outputs[:, 2:], classes)
    assert ce.item() == pytest.approx(surprises(outputs[:, 2:], classes))
    both = torch.cat([numbers, classes[:, None].float()], 1)
    total = label_loss(HEADS, outputs, both)
    assert total.item() == pytest.approx(0.5 * error.item() + ce.item())


def test_half_precision_is_widened(case):
    outputs, numbers, _ = case
    loss = label_loss(NUMBERS, outputs[:, :2].bfloat16(), numbers)
    assert loss.dtype == torch.float32


def test_heads_get_their_own_columns(case):
    outputs, numbers, classes = case
    targets = torch.cat([numbers, classes[:, None].float()], 1)
    size, kind = HEADS.split(outputs, targets)
    assert (size.head.name, kind.head.name) == ("size", "kind")
    assert torch.equal(size.outputs, outputs[:, :2])
    assert torch.equal(size.targets, numbers)
    assert torch.equal(kind.outputs, outputs[:, 2:])
    assert torch.equal(kind.targets, classes)
    assert HEADS.columns == 3


def test_the_headline_is_that_of_the_first_head(case):
    outputs, numbers, classes = case
    targets = torch.cat([numbers, classes[:, None].float()], 1)
    assert HEADS.headline.name == "rmse_size"
    assert HEADS.headline.unit == "metres"
    expected = squares(outputs[:, :2], numbers) ** 0.5
    assert headline_of(HEADS, outputs, targets) == pytest.approx(expected)
    assert headline_of(NUMBERS, outputs[:, :2], numbers) == pytest.approx(expected)
    said = outputs[:, 2:].argmax(1)
    percent = 100 * sum(a == b for a, b in zip(said, classes, strict=True)) / 7
    top1 = headline_of(Task(outputs=3), outputs[:, 2:], classes)
    assert top1 == pytest.approx(float(percent))


def test_a_target_from_labels_alone(case):
    _, numbers, classes = case
    assert torch.equal(label_target(NUMBERS, numbers), numbers)
    one_hot = label_target(Task(outputs=3), classes)
    assert one_hot.sum().item() == 7
    assert torch.equal(one_hot.argmax(1), classes)


def test_heads_and_the_kind_go_together():
    with pytest.raises(ValueError, match="go together"):
        Task(kind="multi-task", outputs=3)
    with pytest.raises(ValueError, match="5 outputs, not 4"):
        Task(kind="multi-task", outputs=4, heads=HEADS.heads)


def test_a_task_in_words():
    assert HEADS.sentence() == "size: 2 numbers (metres); kind: 3 classes"
