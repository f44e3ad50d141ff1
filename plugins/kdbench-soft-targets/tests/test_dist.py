"""dist: Pearson correlations from the definition; undefined ones stay finite."""

import pytest
import torch
from kdbench_soft_targets.dist import Dist, dist_losses

from kdbench import UserError


def pearson(a, b):
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    both = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    var_a = sum((x - mean_a) ** 2 for x in a)
    var_b = sum((y - mean_b) ** 2 for y in b)
    return both / torch.sqrt(var_a * var_b)


def reference(student, teacher, temperature, intra_weight):
    def softmax(z):
        sums = [sum(torch.exp(x) for x in row) for row in z]
        return [[torch.exp(x) / s for x in row] for row, s in zip(z, sums, strict=True)]

    def one_minus(rows_a, rows_b):
        each = [pearson(a, b) for a, b in zip(rows_a, rows_b, strict=True)]
        return 1 - sum(each) / len(each)

    p, q = softmax(teacher / temperature), softmax(student / temperature)
    total = one_minus(q, p)
    if intra_weight:
        columns = [list(zip(*x, strict=True)) for x in (q, p)]
        total = total + intra_weight * one_minus(*columns)
    return temperature**2 * total


@pytest.mark.parametrize("size", [(1, 10), (5, 2), (5, 3), (3, 1000)], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_matches_the_definition(given, assert_same, size, temperature):
    teacher = given.normal(*size, scale=2).detach()
    intra_weight = 0 if size[0] == 1 else 3

    def fast(student):
        inter, intra = dist_losses(student, teacher.to(student.dtype), temperature)
        return inter + 3 * intra

    assert_same(
        fast,
        lambda s: reference(s, teacher, temperature, intra_weight),
        given.normal(*size, scale=2),
    )


def test_a_thousand_classes_against_numpy(given):
    np = pytest.importorskip("numpy")
    student, teacher = given.normal(4, 1000), given.normal(4, 1000)
    p, q = (torch.softmax(z / 4, 1).detach().numpy() for z in (student, teacher))
    rows = [np.corrcoef(p[b], q[b])[0, 1] for b in range(4)]
    columns = [np.corrcoef(p[:, c], q[:, c])[0, 1] for c in range(1000)]
    inter, intra = dist_losses(student, teacher, 4.0)
    assert inter.item() == pytest.approx(16 * (1 - np.mean(rows)), rel=1e-9)
    assert intra.item() == pytest.approx(16 * (1 - np.mean(columns)), rel=1e-9)


def test_does_not_depend_on_scale_and_shift_of_probabilities():
    """Agreement in rank and proportion is enough: the point of the paper."""
    teacher = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], dtype=torch.float64)
    student = 0.5 * teacher + 0.5 / 3
    inter, intra = dist_losses(student.log(), teacher.log(), 1.0)
    assert inter.item() == pytest.approx(0, abs=1e-12)
    assert intra.item() == pytest.approx(0, abs=1e-12)
    opposite, _ = dist_losses((2 / 3 - teacher).clamp(min=0.01).log(), teacher.log(), 1)
    assert opposite > 1


def test_a_batch_of_one_has_no_intra_class_relation(given, assert_trains):
    batch = given.batch(items=1)
    assert Dist().loss(batch)["intra"] == 0
    assert_trains(Dist(), batch)


def test_constant_vectors_give_no_gradient(given):
    for dtype in (torch.float32, torch.float64):
        student = torch.full((4, 10), 0.1, dtype=dtype, requires_grad=True)
        teacher = given.normal(4, 10).detach().to(dtype)
        both = dist_losses(student, teacher, 4.0)
        (gradient,) = torch.autograd.grad(sum(both), student)
        torch.testing.assert_close(both[0].double(), torch.tensor(16.0).double())
        assert gradient.abs().max() == 0


def test_finite_at_extreme_logits():
    student = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], requires_grad=True)
    both = dist_losses(student, student.detach().flip(0), 4.0)
    (gradient,) = torch.autograd.grad(sum(both), student)
    assert all(torch.isfinite(x) for x in both)
    assert torch.isfinite(gradient).all()


def test_trains_the_student_only(given, assert_trains):
    assert_trains(Dist(), given.batch())


def test_weights_scale_their_own_term(given):
    batch = given.batch()
    one = Dist(dist_weight=1).loss(batch)
    two = Dist(ce_weight=2, dist_weight=3, inter_weight=5, intra_weight=7).loss(batch)
    torch.testing.assert_close(two["ce"], 2 * one["ce"])
    torch.testing.assert_close(two["inter"], 15 * one["inter"])
    torch.testing.assert_close(two["intra"], 21 * one["intra"])


def test_bfloat16(given, assert_trains):
    assert_trains(Dist(), given.batch(dtype=torch.bfloat16))


def test_refuses_a_temperature_that_is_not_positive():
    with pytest.raises(UserError, match="temperature must be > 0"):
        Dist.configured({"temperature": -4})
