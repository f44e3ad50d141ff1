"""mlkd: KL on two views and Gram matrices of items and classes, by loops."""

from dataclasses import replace

import pytest
import torch
from kdbench_soft_targets import mlkd
from kdbench_soft_targets.mlkd import MultiLevelLogit, gram_losses

from kdbench import Outputs, UserError
from kdbench.api import ExtraView
from kdbench.testing import mutated


def softmax(z, temperature):
    weights = torch.exp((z - max(z.tolist())) / temperature)
    return weights / weights.sum()


def reference(weak, strong, teachers, targets):
    """||A^T A - B^T B||^2 = sum_ij (a_i a_j)^2 - 2 (a_i b_j)^2 + (b_i b_j)^2."""
    items, classes = weak.shape
    total = 0.0
    for s in (weak, strong):
        for z, y in zip(s, targets, strict=True):
            total = total - 0.1 * torch.log(softmax(z, 1)[y]) / items
    for T in (2, 3, 4, 5, 6):
        for s, t in zip((weak, strong), teachers, strict=True):
            p, q = ([softmax(z, T) for z in side] for side in (t, s))
            for a, b in zip(p, q, strict=True):
                total = total + 9 * T**2 * (a * torch.log(a / b)).sum() / items
            if s is weak:
                pp, qq, pq = (
                    [[(a * b).sum() for b in right] for a in left]
                    for left, right in ((p, p), (q, q), (p, q))
                )
                for i in range(items):
                    for j in range(items):
                        total = total + 9 * (pp[i][j] - qq[i][j]) ** 2 / items
                        own = pp[i][j] ** 2 + qq[i][j] ** 2 - 2 * pq[i][j] ** 2
                        total = total + 9 * own / classes
    return total


def with_views(batch, weak, strong, teachers):
    view = ExtraView(
        inputs=batch.inputs,
        partner=batch.index,
        share=torch.ones(len(weak)),
        students=(Outputs(strong),),
        teachers=(Outputs(teachers[1]),),
    )
    own = {"students": (Outputs(weak),), "teachers": (Outputs(teachers[0]),)}
    return replace(batch, views={"strong": view}, **own)


def compare(given, assert_same, module, size):
    batch = given.batch(items=size[0], classes=size[1])
    teachers = [given.normal(*size, scale=3).detach() for _ in range(2)]

    def fast(weak, strong):
        own = [t.to(weak.dtype) for t in teachers]
        terms = module.MultiLevelLogit().loss(with_views(batch, weak, strong, own))
        return sum(terms.values())

    def slow(weak, strong):
        return reference(weak, strong, teachers, batch.targets)

    students = [given.normal(*size, scale=3) for _ in range(2)]
    assert_same(fast, slow, *students)


@pytest.mark.parametrize("size", [(1, 2), (1, 10), (5, 2), (2, 1000)], ids=str)
def test_matches_the_definition(given, assert_same, size):
    compare(given, assert_same, mlkd, size)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(p @ p.T - q @ q.T)", "(p @ p.T + q @ q.T)"),
        ("p.T @ p - q.T @ q", "p @ p.T - q @ q.T"),
        ("/ p.shape[1]", "/ p.shape[1] ** 2"),
        ("(2.0, 3.0, 4.0, 5.0, 6.0)", "(2.0, 3.0, 4.0, 5.0)"),
        ("for a, b in views for T", "for a, b in views[:1] for T"),
        ("view.teachers[0].logits", "batch.teachers[0].logits"),
        ("*views[0], T", "*views[1], T"),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, right, wrong):
    with pytest.raises(AssertionError, match="not close"):
        compare(given, assert_same, mutated(mlkd, right, wrong), (5, 4))


def test_class_relations_by_loops_over_classes(given):
    student, teacher = given.normal(3, 4), given.normal(3, 4)
    p, q = (torch.softmax(z / 2, dim=1) for z in (student, teacher))
    total = 0.0
    for a in range(4):
        for b in range(4):
            total += (sum(p[:, a] * p[:, b]) - sum(q[:, a] * q[:, b])) ** 2 / 4
    torch.testing.assert_close(gram_losses(student, teacher, 2.0)[1], total)


def two_views(given, **kinds):
    """A batch whose four sets of logits are leaves that `given` knows."""
    batch, strong = given.batch(**kinds), None
    students, teachers = given.students, given.teachers
    strong = given.batch(**kinds)
    given.students, given.teachers = (
        students + given.students,
        teachers + given.teachers,
    )
    both = (batch.teacher.logits, strong.teacher.logits)
    return with_views(batch, batch.student.logits, strong.student.logits, both)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_on_both_views(given, assert_trains, dtype):
    assert MultiLevelLogit.views == ("strong",)
    assert_trains(MultiLevelLogit(), two_views(given, dtype=dtype))
    assert len(given.students) == len(given.teachers) == 2


def test_finite_at_extreme_logits(given):
    batch = two_views(given, items=20, scale=1e3)
    terms = MultiLevelLogit().loss(batch)
    gradients = torch.autograd.grad(sum(terms.values()), given.students)
    assert all(torch.isfinite(x).all() for x in (*terms.values(), *gradients))


def test_weights_scale_their_own_term(given):
    batch = two_views(given)
    weights = {"ce": 2, "kd": 3, "batch": 5, "class": 7}
    fields = {f"{name}_weight": weight for name, weight in weights.items()}
    one = MultiLevelLogit(**dict.fromkeys(fields, 1)).loss(batch)
    for name, value in MultiLevelLogit(**fields).loss(batch).items():
        torch.testing.assert_close(value, weights[name] * one[name])


def test_refuses_a_negative_weight():
    with pytest.raises(UserError, match="class_weight must be >= 0"):
        MultiLevelLogit.configured({"class_weight": -1})
