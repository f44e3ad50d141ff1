"""meta_pseudo_labels: the teacher's loss, whole steps of both, phases, resuming."""

import copy
from dataclasses import replace

import pytest
import torch
from kdbench_pseudo_label import meta_pseudo_labels
from kdbench_pseudo_label.meta_pseudo_labels import MetaPseudoLabels, drawn
from torch import nn

from kdbench import Batch, Context, Recipe, Task, UserError
from kdbench.batches import ExtraView
from kdbench.testing import mutated

RATE = 0.3
PLAIN = {"ramp": 0, "finetune_share": 0, "memory": 0.9, "threshold": 0.5}
KINDS = ("ce", "meta", "uda")
MASKS = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]]).bool()


class Toy(Context):
    """Two models on fixed data; what is stored is restored as an engine would."""

    def __init__(self, epochs=2, make=lambda: nn.Linear(4, 3).double(), saved=None):
        torch.manual_seed(1)
        self.recipe = Recipe(epochs=epochs, batch_size=4, lr=RATE)
        self.task = Task(outputs=3)
        self.students = [make() for _ in range(2)]
        dtype = next(self.students[0].parameters()).dtype
        self.inputs = torch.randn(2, 4, 4, 4, dtype=dtype)  # views, batches, items
        self.targets = torch.randint(3, (4, 4))
        self.teachers, self.logged, self.saved = [], [], saved
        self.done, self.until, self.state, self.momenta = 0, epochs, {}, []
        if saved:
            self.done, self.students, self.state, self.momenta = copy.deepcopy(saved)
        self.optimisers, self.values = [], {}

    def epochs(self):
        for epoch in range(self.done, self.until):
            self.logged.append(set())
            for model in self.students:
                model.eval()  # as after an evaluation
            yield epoch
            momenta = [o.state_dict() for o in self.optimisers]
            now = (epoch + 1, self.students, self.state, momenta)
            self.done, self.saved = epoch + 1, copy.deepcopy(now)

    def batches(self):
        for step in range(4):
            yield self.batch(step)

    def batch(self, step):
        clean, strong = self.inputs[:, step]
        index = torch.arange(4)
        view = ExtraView(strong, index, torch.ones(4), (), ())
        return Batch(
            task=self.task,
            inputs=clean,
            targets=self.targets[step],
            index=index,
            labelled=MASKS[step],
            students=(),
            teachers=(),
            adapters=None,
            progress=1.0,
            epoch=0.0,
            generator=torch.Generator().manual_seed(10 * self.done + step),
            views={"strong": view},
        )

    def optimiser(self, parameters):
        momentum = 0.9 if self.recipe.epochs > 2 else 0.0
        made = torch.optim.SGD(parameters, lr=RATE, momentum=momentum)
        if self.momenta:
            made.load_state_dict(self.momenta.pop(0))
        self.optimisers.append(made)
        return made

    def log(self, term, value):
        assert value.shape == ()
        assert not value.requires_grad
        assert torch.isfinite(value)
        self.logged[-1].add(term)
        self.values.setdefault(term, []).append(float(value))


def log_softmax(z):
    top = max(z.tolist())
    total = torch.log(sum(torch.exp(x - top) for x in z)) + top
    return [x - total for x in z]


def mean(values, like):
    return sum(values) / len(values) if values else 0 * like.sum()


def ce(logits, labels, mask):
    each = [
        -log_softmax(z)[y] for z, y, m in zip(logits, labels, mask, strict=True) if m
    ]
    return mean(each, logits)


def teacher_loss(clean, strong, targets, labelled, pseudo, h, threshold=0.5):
    """Of weights 1, 2 (feedback), 3 (UDA) and UDA's temperature 0.75."""
    uda = []
    for b, known in enumerate(labelled):
        if not known:
            log_q = log_softmax(clean[b].detach() / 0.75)
            q = [x.exp() for x in log_q]
            log_p = log_softmax(strong[b])
            sure = max(float(x) for x in q) >= threshold
            uda.append(-sum(a * b for a, b in zip(q, log_p, strict=True)) * sure)
    own = ce(strong, pseudo, ~labelled)
    return ce(clean, targets, labelled) + 2 * h * own + 3 * mean(uda, strong)


def compare(given, assert_same, size, mask, scale=2, cls=MetaPseudoLabels):
    strategy = cls(meta_weight=2, uda_weight=3, ramp=0, threshold=0.2)
    labelled = torch.tensor(mask)
    batch = given.batch(items=len(mask), classes=size, labelled=labelled)
    pseudo = given.classes(len(mask), size)

    def fast(clean, strong):
        h = torch.tensor(-0.7, dtype=clean.dtype)
        terms = strategy.teacher_terms(batch, clean, strong, pseudo, h)
        return sum(terms.values())

    assert_same(
        fast,
        lambda a, b: teacher_loss(a, b, batch.targets, labelled, pseudo, -0.7, 0.2),
        given.normal(len(mask), size, scale=scale),
        given.normal(len(mask), size, scale=scale),
    )


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("mask", [[True, False, False], [True], [False]], ids=str)
@pytest.mark.parametrize("scale", [2, 1e3])
def test_the_teachers_loss_matches_the_definition(
    given, assert_same, classes, mask, scale
):
    compare(given, assert_same, classes, mask, scale)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/ self.uda_temperature", "* self.uda_temperature"),
        ("self.meta_weight * h * own", "self.meta_weight * own"),
        ("cross_entropies(strong, q)", "cross_entropies(clean, q)"),
        ("masked_mean(uda, ~batch", "masked_mean(uda, batch"),
    ],
)
def test_a_wrong_teachers_loss_is_noticed(given, assert_same, old, new):
    wrong = mutated(meta_pseudo_labels, old, new).MetaPseudoLabels
    with pytest.raises(AssertionError):
        compare(given, assert_same, 10, [True, False, False], cls=wrong)


def follows_the_algorithm(cls):
    """Two epochs of steps on linear models, by hand, against the strategy's."""
    context = Toy()
    student, teacher = copy.deepcopy(context.students)
    average, terms = 0.0, []
    for epoch in range(2):
        for step in range(4):
            batch = context.batch(step)
            strong, known = batch.views["strong"].inputs, MASKS[step]
            generator = torch.Generator().manual_seed(10 * epoch + step)
            pseudo = drawn(teacher(strong), generator)
            before = ce(student(batch.inputs), batch.targets, known).detach()
            descend(student, ce(student(strong), pseudo, ~known))
            after = ce(student(batch.inputs), batch.targets, known).detach()
            h = 0.0
            if known.any():
                average = 0.9 * average + 0.1 * (before - after)
                h = before - after - average
            answers = teacher(batch.inputs), teacher(strong)
            loss = teacher_loss(*answers, batch.targets, known, pseudo, h)
            terms.append(float(loss.detach()))
            descend(teacher, loss)
    strategy = cls(meta_weight=2, uda_weight=3, **PLAIN)
    assert strategy.train(context) is context.students[0]
    for mine, theirs in zip((student, teacher), context.students, strict=True):
        torch.testing.assert_close(theirs.weight, mine.weight, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(theirs.bias, mine.bias, rtol=1e-9, atol=1e-9)
    summed = [sum(x) for x in zip(*(context.values[k] for k in KINDS), strict=True)]
    assert summed == pytest.approx(terms)
    assert context.state["average"] == pytest.approx(float(average))


def descend(model, loss):
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= RATE * gradient


def test_steps_follow_the_algorithm():
    follows_the_algorithm(MetaPseudoLabels)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("before - after, batch.labelled", "after - before, batch.labelled"),
        ("(1 - self.memory) * (gain", "self.memory * (gain"),
        ("torch.where(clean, batch.inputs, strong)", "batch.inputs"),
        ("torch.where(batch.labelled.any(), gain, average)", "gain"),
        ("drawn(strong_z, ", "drawn(clean_z, "),
    ],
)
def test_wrong_steps_are_noticed(old, new):
    with pytest.raises(AssertionError):
        follows_the_algorithm(mutated(meta_pseudo_labels, old, new).MetaPseudoLabels)


def test_the_gain_is_the_papers_dot_product_to_first_order():
    """Equation 12, for a small learning rate."""
    context = Toy()
    context.logged.append(set())
    batch, student = context.batch(0), context.students[0]
    pseudo = torch.tensor([0, 1, 2, 0])
    losses = (
        ce(student(batch.inputs), batch.targets, MASKS[0]),
        ce(student(batch.views["strong"].inputs), pseudo, ~MASKS[0]),
    )
    a, b = (torch.autograd.grad(x, list(student.parameters())) for x in losses)
    dot = sum((x * y).sum() for x, y in zip(a, b, strict=True))
    slow = torch.optim.SGD(student.parameters(), lr=1e-6)
    gain = MetaPseudoLabels().teach(context, slow, batch, pseudo)
    assert float(gain) == pytest.approx(1e-6 * float(dot), rel=1e-4)
    assert dot != 0


def test_labels_are_drawn_by_their_probability():
    p = torch.tensor([0.5, 0.3, 0.2, 0.0])
    logits = p.log().clamp(min=-1e4).repeat(20000, 1)
    generator = torch.Generator().manual_seed(0)
    shares = drawn(logits, generator).bincount(minlength=4) / 20000
    torch.testing.assert_close(shares, p, atol=0.015, rtol=0)
    again = drawn(logits, torch.Generator().manual_seed(0))
    assert torch.equal(again, drawn(logits, torch.Generator().manual_seed(0)))
    extreme = torch.tensor([[1e4, -1e4], [-1e4, 1e4]]).bfloat16()
    assert drawn(extreme, generator).tolist() == [0, 1]


def test_the_student_ends_on_labels():
    context = Toy(epochs=4)
    context.until = 2
    strategy = MetaPseudoLabels(finetune_share=0.5)
    strategy.train(context)
    before = copy.deepcopy([m.state_dict() for m in context.students])
    context.until = 4
    strategy.train(context)
    after = [m.state_dict() for m in context.students]
    assert not torch.equal(after[0]["weight"], before[0]["weight"])
    assert torch.equal(after[1]["weight"], before[1]["weight"])  # it has done its part
    assert context.logged == [{"student", *KINDS}] * 2 + [{"finetune"}] * 2
    assert all(model.training for model in context.students)
    defaults = MetaPseudoLabels()
    assert [round((1 - defaults.finetune_share) * n) for n in (3, 240)] == [3, 239]


@pytest.mark.parametrize("interrupted", [1, 2, 3])
def test_resumes_to_the_same_bits(interrupted):
    strategy = MetaPseudoLabels(**PLAIN | {"finetune_share": 0.25})
    whole = Toy(epochs=4)
    strategy.train(whole)
    first = Toy(epochs=4)
    first.until = interrupted
    strategy.train(first)
    second = Toy(epochs=4, saved=first.saved)
    strategy.train(second)
    for a, b in zip(whole.students, second.students, strict=True):
        assert torch.equal(a.weight, b.weight)
    assert whole.state == second.state


def test_trains_nets_with_batch_norm_in_half_precision():
    """One labelled item, or none, must not be a batch of batch norm's own."""

    class Net(nn.Sequential):
        def forward(self, x):
            return super().forward(x).bfloat16()

    context = Toy(make=lambda: Net(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)))
    before = copy.deepcopy(context.students)
    MetaPseudoLabels(**PLAIN).train(context)
    for old, new in zip(before, context.students, strict=True):
        for a, b in zip(old.parameters(), new.parameters(), strict=True):
            assert torch.isfinite(b).all()
            assert not torch.equal(a, b)


def test_the_ramp_is_of_uda_only(given):
    batch = given.batch(labelled=torch.tensor([True, False, False, True]))
    z, y, h = batch.student.logits, batch.targets, torch.tensor(0.5)
    strategy = MetaPseudoLabels(threshold=0)
    full = strategy.teacher_terms(batch, z, z, y, h)
    half = strategy.teacher_terms(replace(batch, progress=0.005), z, z, y, h)
    torch.testing.assert_close(half["uda"], full["uda"] / 2)
    assert (half["ce"], half["meta"]) == (full["ce"], full["meta"])


def test_drives_itself_without_the_pairs_teacher():
    strategy = MetaPseudoLabels()
    assert strategy.drives_itself()
    assert (strategy.students, strategy.teachers) == (2, 0)
    assert strategy.label_fraction == 0.1


@pytest.mark.parametrize(
    "bad",
    [{"label_fraction": 1}, {"memory": 2}, {"threshold": -1}, {"uda_temperature": 0}],
)
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        MetaPseudoLabels.configured(bad)
