"""split_transfer: its maths, its phases, when it stops, and that it resumes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from kdbench_mutual_learning import split_transfer
from kdbench_mutual_learning.split_transfer import (
    SplitTransfer,
    disagreement,
    gaps,
    transfer_loss,
)
from torch import nn

from kdbench import Batch, Context, Recipe, Task, UserError
from kdbench.testing import mutated


class Toy(Context):
    """Linear sub-models on fixed data; `done` epochs are stored as an engine would."""

    def __init__(self, students=2, epochs=6, lr=0.5):
        generator = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(10, 4, generator=generator)
        self.targets = torch.randint(3, (10,), generator=generator)
        self.recipe = Recipe(epochs=epochs, batch_size=4, lr=lr, momentum=0.9)
        self.task = Task(outputs=3)
        self.students = [nn.Linear(4, 3) for _ in range(students)]
        for model in self.students:
            nn.init.normal_(model.weight, generator=generator)
            nn.init.zeros_(model.bias)
        self.teachers = []
        self.state = {}
        self.logged = []
        self.done = 0
        self.until = epochs
        self.saved = None

    def epochs(self):
        for epoch in range(self.done, self.until):
            self.logged.append(set())
            for model in self.students:
                model.eval()  # as after an evaluation
            yield epoch
            self.done = epoch + 1
            self.saved = copy.deepcopy((self.done, self.students, self.state))

    def batches(self):
        for index in torch.arange(10).split(4):
            yield Batch(
                task=self.task,
                inputs=self.inputs[index],
                targets=self.targets[index],
                index=index,
                labelled=torch.ones(len(index), dtype=torch.bool),
                students=(),
                teachers=(),
                adapters=None,
                progress=0.0,
                epoch=0.0,
                generator=torch.Generator(),
            )

    def optimiser(self, parameters):
        return torch.optim.SGD(parameters, lr=self.recipe.lr)

    def log(self, term, value):
        assert value.shape == ()
        assert not value.requires_grad
        self.logged[-1].add(term)


def softmax(z):
    top = max(z.tolist())
    weights = [torch.exp(x - top) for x in z]
    total = sum(weights)
    return [w / total for w in weights]


def reference(models, power):
    """Sum over sub-models of the mean over items and classes of |gap|^power."""
    items, classes = models[0].shape
    p = [[softmax(row) for row in z] for z in models]
    total = 0.0
    for k, mine in enumerate(p):
        for b in range(items):
            for c in range(classes):
                others = [p[j][b][c].detach() for j in range(len(p)) if j != k]
                gap = mine[b][c] - sum(others) / len(others)
                total = total + abs(gap) ** power / items / classes
    return total


@pytest.mark.parametrize("size", [(1, 2), (3, 4), (1, 1000)], ids=str)
@pytest.mark.parametrize("models", [2, 3])
def test_transfer_loss_matches_the_definition(given, assert_same, size, models):
    logits = [given.normal(*size, scale=2) for _ in range(models)]
    assert_same(lambda *z: transfer_loss(gaps(z)), lambda *z: reference(z, 2), *logits)
    expected = reference(logits, 1) / models
    torch.testing.assert_close(disagreement(gaps(logits)), expected.detach())


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("fixed = p.detach()", "fixed = p"),
        ("/ (len(p) - 1)", "/ len(p)"),
        ("p.softmax(dim=2) if", "p.softmax(dim=1) if"),
        ("mean(dim=(1, 2)).sum()", "mean()"),
    ],
)
def test_a_mistake_is_noticed(given, assert_same, right, wrong):
    logits = [given.normal(3, 4, scale=2) for _ in range(3)]
    module = mutated(split_transfer, right, wrong)
    with pytest.raises(AssertionError):
        assert_same(
            lambda *z: module.transfer_loss(module.gaps(z)),
            lambda *z: reference(z, 2),
            *logits,
        )


def test_finite_at_extreme_logits_and_in_bfloat16(given):
    a = torch.tensor([[1e4, -1e4]], requires_grad=True)
    b = torch.tensor([[-1e4, 1e4]], requires_grad=True)
    loss = transfer_loss(gaps([a, b]))
    assert loss == 2
    assert disagreement(gaps([a, b])) == 1
    for gradient in torch.autograd.grad(loss, (a, b)):
        assert torch.isfinite(gradient).all()
    half = [given.normal(3, 4).bfloat16() for _ in range(2)]
    assert gaps(half).dtype == torch.float32
    assert torch.isfinite(transfer_loss(gaps(half)))


def test_phases_follow_the_epochs():
    context = Toy(epochs=6)
    strategy = SplitTransfer.configured({"split_share": 0.5, "tolerance": 0})
    assert strategy.train(context) is context.students[0]
    assert context.logged == [{"ce"}] * 3 + [{"transfer", "disagreement"}] * 3
    assert all(model.training for model in context.students)


def test_alone_each_sub_model_is_trained_as_if_the_others_were_not_there():
    context = Toy(epochs=2)
    alone = copy.deepcopy(context.students)
    SplitTransfer(split_share=1).train(context)
    for model, expected in zip(context.students, alone, strict=True):
        optimiser = torch.optim.SGD(expected.parameters(), lr=0.5)
        for _ in range(2):
            for batch in context.batches():
                optimiser.zero_grad()
                F.cross_entropy(expected(batch.inputs), batch.targets).backward()
                optimiser.step()
        torch.testing.assert_close(model.weight, expected.weight)


def left(context):
    logits = [model(context.inputs) for model in context.students]
    return float(disagreement(gaps(logits)))


def test_transfer_brings_the_sub_models_together():
    for students in (2, 3):
        context = Toy(students=students, epochs=60)
        before = left(context)
        SplitTransfer(students=students, split_share=0, tolerance=0).train(context)
        assert left(context) < 0.3 * before


def test_stops_when_the_sub_models_agree():
    context = Toy(epochs=200, lr=2.0)
    SplitTransfer(split_share=0.01, tolerance=0.02).train(context)
    assert 2 < context.done < 200  # the last epoch was stored before the stop
    assert context.state["agreed"] == 1
    assert left(context) < 0.02
    again = Toy(epochs=200)
    again.done, again.students, again.state = context.saved
    weights = copy.deepcopy(again.students[0].state_dict())
    SplitTransfer(split_share=0.01, tolerance=0.02).train(again)
    torch.testing.assert_close(again.students[0].state_dict(), weights, rtol=0, atol=0)


def test_equal_sub_models_stop_after_one_epoch_of_transfer():
    context = Toy(epochs=10)
    context.students[1].load_state_dict(context.students[0].state_dict())
    SplitTransfer(split_share=0.2).train(context)
    assert context.done == 3


@pytest.mark.parametrize("interrupted", [1, 3, 4])
def test_resumes_to_the_same_bits(interrupted):
    strategy = SplitTransfer(tolerance=0)
    whole = Toy(epochs=6)
    strategy.train(whole)
    first = Toy(epochs=6)
    first.until = interrupted
    strategy.train(first)
    second = Toy(epochs=6)
    second.done, second.students, second.state = first.saved
    strategy.train(second)
    for a, b in zip(whole.students, second.students, strict=True):
        assert torch.equal(a.weight, b.weight)
        assert torch.equal(a.bias, b.bias)


def test_weights_are_used():
    def after(**weights):
        context = Toy(epochs=1)
        SplitTransfer(split_share=0, tolerance=0, **weights).train(context)
        return context

    start = Toy().students[0].weight
    still = after(transfer_weight=0)
    assert torch.equal(still.students[0].weight, start)
    assert not torch.equal(after().students[0].weight, start)
    labelled = after(transfer_weight=0, ce_weight=1)
    assert labelled.logged == [{"ce", "transfer", "disagreement"}]
    alone = Toy(epochs=1)
    SplitTransfer(split_share=1).train(alone)
    torch.testing.assert_close(labelled.students[0].weight, alone.students[0].weight)


def test_drives_itself_without_a_teacher():
    assert SplitTransfer.drives_itself()
    assert SplitTransfer().teachers == 0


@pytest.mark.parametrize(
    "bad", [{"students": 1}, {"split_share": 1.5}, {"tolerance": -1}]
)
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        SplitTransfer.configured(bad)
