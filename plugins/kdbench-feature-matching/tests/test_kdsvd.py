"""kdsvd: relations of singular vectors, item by item with a full decomposition."""

from itertools import pairwise

import kdbench_feature_matching.kdsvd as module
import pytest
import torch
from kdbench_feature_matching.kdsvd import SingularVectors, singular_loss
from torch import nn

from kdbench import Outputs, Tapped, UserError
from kdbench.testing import mutated

STUDENT = {"stage1": (3, 4, 4), "stage2": (6, 2, 2), "stage3": (4, 2, 2)}
TEACHER = {"stage1": (5, 4, 4), "stage2": (6, 2, 2), "stage3": (7, 1, 2)}
SHAPES = ((2, 3, 4, 4), (2, 6, 2, 2), (2, 4, 3, 1))


def tapped(name, shapes):
    return Tapped(name, {**shapes, "logits": (5,)}, nn.Identity())


def answer(maps):
    """A teacher's answer, and the taps that have these maps."""
    named = {f"stage{k}": x.detach() for k, x in enumerate(maps)}
    return Outputs(named["stage0"], named), list(named)


def reference(students, teachers, k):
    """By torch's own decomposition of each (H * W, C) matrix and its derivative."""

    def sides(student, teacher):
        _, _, rows = torch.linalg.svd(student.flatten(1).T, full_matrices=False)
        _, values, wanted = torch.linalg.svd(teacher.flatten(1).T, full_matrices=False)
        values = values[:k] / torch.sqrt(sum(x * x for x in values[:k]))
        own, theirs = [], []
        for value, vector in zip(values, wanted[:k], strict=True):
            target = vector if vector.sum() >= 0 else -vector
            cosines = [(row * target).sum().item() for row in rows[: k + 3]]
            n = max(range(len(cosines)), key=lambda i: abs(cosines[i]))
            own.append(value * rows[n] * (1 if cosines[n] >= 0 else -1))
            theirs.append(value * target)
        return own, theirs

    def relations(now, before):
        return [
            torch.exp(-((x - y) ** 2) / 8)
            for v, w in zip(now, before, strict=True)
            for x in v
            for y in w
        ]

    total, items = 0, len(students[0])
    for b in range(items):
        pairs = zip(students, teachers, strict=True)
        found = [sides(s[b], t[b]) for s, t in pairs]
        for before, now in pairwise(found):
            s, t = relations(now[0], before[0]), relations(now[1], before[1])
            total = total + sum((x - y) ** 2 for x, y in zip(s, t, strict=True))
    return total / items


def compare(given, assert_same, loss, k=1, items=2):
    shapes = [(items, *shape[1:]) for shape in SHAPES]
    # Near the teacher's, with one strong direction as after a ReLU.
    teachers = [given.normal(*shape).detach() + 1 for shape in shapes]
    students = [t + given.normal(*t.shape).detach() / 2 for t in teachers]
    assert_same(
        lambda *s: loss(s, *answer(t.to(s[0].dtype) for t in teachers), k),
        lambda *s: reference(s, teachers, k),
        *students,
    )


@pytest.mark.parametrize("items", [1, 3])
@pytest.mark.parametrize("k", [1, 2])
def test_matches_the_definition(given, assert_same, items, k):
    """Fewer channels than positions and the other way about."""
    compare(given, assert_same, singular_loss, k, items)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("torch.inf)", "1.0)"),
        ("@ (change / gaps)) * sign", "@ (change / gaps))"),
        ("square() / 8", "square() / 2"),
        ("chosen + basis @", "chosen - basis @"),
        ("relation(now, before) for", "relation(now, -before) for"),
        ("relation(now, before) - of_teacher", "relation(now, before) + of_teacher"),
        ("wanted) * scale", "wanted)"),
        ("[wanted * scale for", "[wanted for"),
        (".square().sum() / len(now)", ".square().sum()"),
    ],
)
def test_mistakes_are_noticed(given, assert_same, old, new):
    wrong = mutated(module, old, new)
    with pytest.raises(AssertionError):
        compare(given, assert_same, wrong.singular_loss, k=2)


def flat(value=1.0):
    """Every singular value of every item the same, or all of them zero."""
    maps = value * torch.eye(4).expand(2, 4, 4)
    return maps.reshape(2, 4, 2, 2).clone().requires_grad_()


@pytest.mark.parametrize("value", [0.0, 1.0, 1e4])
def test_coinciding_singular_values_stay_finite(given, value):
    students = [flat(value), flat(value)]
    teachers = [given.normal(2, 4, 2, 2).float() for _ in students]
    loss = singular_loss(students, *answer(teachers), 1)
    gradients = torch.autograd.grad(loss, students)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in gradients)


def test_the_same_maps_cost_nothing_whatever_their_sign(given):
    maps = [given.normal(2, 4, 3, 3), given.normal(2, 5, 2, 2)]
    value = singular_loss([-3 * x for x in maps], *answer(maps), 2)
    assert value.item() == pytest.approx(0, abs=1e-12)


def prepared(given, teacher=TEACHER, **options):
    torch.manual_seed(0)
    make = SingularVectors().adapters
    adapters = make(tapped("student", STUDENT), tapped("teacher", teacher))
    return given.batch(
        student_shapes=STUDENT, teacher_shapes=teacher, adapters=adapters, **options
    )


@pytest.mark.parametrize("items", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("teacher", [TEACHER, STUDENT], ids=["wider", "equal"])
def test_trains_student_and_widening(given, assert_trains, items, dtype, teacher):
    batch = prepared(given, teacher, items=items, dtype=dtype)
    assert len(list(batch.adapters.parameters())) == (0 if teacher is STUDENT else 2)
    assert_trains(SingularVectors(), batch)


def test_loss_by_hand_from_the_adapters_weights(given):
    batch = prepared(given)
    s = batch.student.features
    widened = [
        torch.einsum("oc,bchw->bohw", fit.weight[:, :, 0, 0], s[k])
        if k != "stage2"
        else s[k]
        for k, fit in zip(STUDENT, batch.adapters, strict=True)
    ]
    expected = singular_loss(widened, batch.teacher, list(TEACHER), 1)
    terms = SingularVectors(ce_weight=0.5).loss(batch)
    torch.testing.assert_close(terms["singular"], expected)
    ce = nn.CrossEntropyLoss()(batch.student.logits, batch.targets)
    torch.testing.assert_close(terms["ce"], 0.5 * ce)


def test_unsupported_pairs_say_why():
    student, teacher = tapped("student", STUDENT), tapped("teacher", TEACHER)
    assert SingularVectors().supports(student, teacher) is None
    assert SingularVectors(k=2).supports(student, teacher) is None
    reason = "a stage has only 2 singular vectors, and k is 3"
    assert SingularVectors(k=3).supports(student, teacher) == reason
    one = tapped("one", {"stage1": (3, 4, 4)})
    assert "there is only one" in SingularVectors().supports(one, one)
    assert SingularVectors().supports(student, None) == "there is no teacher"


def test_refuses_no_vectors():
    with pytest.raises(UserError, match="k must be >= 1"):
        SingularVectors.configured({"k": 0})
