"""noisy_student: its loss on the noised view, its dropout, its generations."""

from dataclasses import replace

import pytest
import torch
from kdbench_pseudo_label import noisy_student
from kdbench_pseudo_label.noisy_student import NoisyStudent, dropped
from torch import nn

from kdbench import Outputs, Phase, Tapped, UserError
from kdbench.batches import ExtraView
from kdbench.testing import mutated

WIDTH = 6
SOME = [True, False, False, True, False]


def noised(batch, feature, classifier):
    """The batch with this pooled feature of its strong view."""
    student = Outputs(torch.full_like(batch.student.logits, torch.nan))
    strong = Outputs(student.logits, {"pooled": feature}, classifier)
    other = torch.full_like(batch.teacher.logits, torch.nan)  # nobody may look at it
    index = torch.arange(len(feature))
    shares = torch.ones(len(feature))
    view = ExtraView(batch.inputs, index, shares, (strong,), (Outputs(other),))
    return replace(batch, students=(student,), views={"strong": view})


def reference(feature, weight, bias, teacher, targets, labelled, kept):
    with_label, without = [], []
    for b, row in enumerate(feature):
        noisy = row * kept[b] / 0.5
        z = [(noisy * w).sum() + c for w, c in zip(weight, bias, strict=True)]
        top = max(float(x.detach()) for x in z)
        log_total = torch.log(sum(torch.exp(x - top) for x in z)) + top
        log_p = [x - log_total for x in z]
        if labelled[b]:
            with_label.append(-log_p[targets[b]])
        else:
            powers = torch.exp(teacher[b] - teacher[b].max())
            q = powers / powers.sum()
            without.append(-sum(a * b for a, b in zip(q, log_p, strict=True)))
    zero = 0 * (feature.sum() + weight.sum() + bias.sum())
    first = sum(with_label) / len(with_label) if with_label else zero
    second = sum(without) / len(without) if without else zero
    return first + 3 * second


def compare(given, assert_same, classes, labelled, strategy=NoisyStudent, scale=2):
    labelled = torch.tensor(labelled)
    items = len(labelled)
    batch = given.batch(items=items, classes=classes, labelled=labelled)
    teacher = given.normal(items, classes, scale=scale).detach()
    state = given.generator.get_state()
    kept = torch.rand((items, WIDTH), generator=given.generator) >= 0.5

    def fast(feature, weight, bias):
        classifier = nn.Linear(WIDTH, classes, dtype=feature.dtype)
        del classifier.weight, classifier.bias
        classifier.weight, classifier.bias = weight, bias
        own = replace(batch, teachers=(Outputs(teacher.to(feature.dtype)),))
        given.generator.set_state(state)
        terms = strategy(pseudo_weight=3).loss(noised(own, feature, classifier))
        return sum(terms.values())

    assert_same(
        fast,
        lambda *x: reference(*x, teacher, batch.targets, labelled, kept),
        given.normal(items, WIDTH, scale=scale),
        given.normal(classes, WIDTH),
        given.normal(classes),
    )


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("labelled", [SOME, [True], [False]], ids=str)
def test_matches_the_definition(given, assert_same, classes, labelled):
    compare(given, assert_same, classes, labelled)


def test_matches_the_definition_at_extreme_logits(given, assert_same):
    compare(given, assert_same, 10, SOME, scale=1e3)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (" / (1 - share)", ""),
        ("pseudo, ~batch.labelled", "pseudo, batch.labelled"),
        ("q.to(logits.dtype)", "q.argmax(1)"),
        ("noised.classifier(feature)", 'noised.classifier(noised.features["pooled"])'),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, old, new):
    wrong = mutated(noisy_student, old, new).NoisyStudent
    with pytest.raises(AssertionError):
        compare(given, assert_same, 10, SOME, wrong)


def test_dropout_keeps_the_mean_and_follows_its_generator():
    ones = torch.ones(100, 1000)
    first, again, other = (
        dropped(ones, 0.2, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(first.unique(), torch.tensor([0, 1 / 0.8]))
    assert abs(float(first.mean()) - 1) < 0.01
    assert torch.equal(dropped(ones, 0.0, torch.Generator()), ones)


@pytest.mark.parametrize("students", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_of_each_phase(given, assert_trains, students, dtype):
    strategy = NoisyStudent(students=students)
    for phase in strategy.phases():
        assert (len(phase.students), len(phase.teachers + phase.peers)) == (1, 1)
        batch = given.batch(labelled=torch.tensor(SOME[:4]), dtype=dtype)
        feature = given.normal(4, WIDTH).detach().to(dtype).requires_grad_()
        classifier = nn.Linear(WIDTH, 5)
        batch = replace(noised(batch, feature, classifier), phase=phase.name)
        assert_trains(strategy, batch, [feature, *classifier.parameters()])


def test_each_generation_teaches_the_next():
    assert NoisyStudent().phases() == (
        Phase(name="generation 1", students=(2,), teachers=(0,)),
        Phase(name="generation 2", students=(1,), teachers=(), peers=(2,)),
        Phase(students=(0,), teachers=(), peers=(1,)),
    )
    assert NoisyStudent(students=1).phases() == (Phase(students=(0,), teachers=(0,)),)


def test_needs_a_linear_classifier():
    def side(classifier):
        model = nn.Sequential(nn.Flatten(), classifier)
        paths = {"pooled": "1:input"}
        return Tapped("it", {"pooled": (4,), "logits": (3,)}, model, paths)

    linear, conv = side(nn.Linear(4, 3)), side(nn.Conv1d(4, 3, 1))
    assert NoisyStudent().supports(linear, conv) is None
    assert "it has no linear classifier" in NoisyStudent().supports(conv, linear)


@pytest.mark.parametrize(
    "bad", [{"students": 0}, {"dropout": 1}, {"dropout": -0.1}, {"label_fraction": 0}]
)
def test_refuses_impossible_values(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        NoisyStudent.configured(bad)
