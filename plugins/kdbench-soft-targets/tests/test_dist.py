"""dist: Pearson correlations from the definition; undefined ones stay finite."""

import pytest
import torch
from kdbench_soft_targets import correlation, dist
from kdbench_soft_targets.dist import Dist, dist_losses

from kdbench import UserError
from kdbench.testing import mutated


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


def compare(given, assert_same, module, size, temperature=4.0):
    teacher = given.normal(*size, scale=2).detach()
    intra_weight = 0 if size[0] == 1 else 3

    def fast(student):
        own = teacher.to(student.dtype)
        inter, intra = module.dist_losses(student, own, temperature)
        return inter + 3 * intra

    assert_same(
        fast,
        lambda s: reference(s, teacher, temperature, intra_weight),
        given.normal(*size, scale=2),
    )


@pytest.mark.parametrize("size", [(1, 10), (5, 2), (5, 3), (3, 1000)], ids=str)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_matches_the_definition(given, assert_same, size, temperature):
    compare(given, assert_same, dist, size, temperature)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("inter = 1 - pearson", "inter = 1 + pearson"),
        ("inter = 1 - pearson", "inter = 0 * pearson"),
        ("p_teacher, dim=0)", "p_teacher, dim=1)"),
        ("intra * temperature**2", "intra"),
        ("(at_least_float32(student) / temperature, dim=1)", "(student, dim=1)"),
    ],
)
def test_a_wrong_formula_is_noticed(given, assert_same, right, wrong):
    with pytest.raises(AssertionError, match="not close"):
        compare(given, assert_same, mutated(dist, right, wrong), (5, 4))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("centred = x - x.mean(dim, keepdim=True)", "centred = x"),
        ("_standardised(b, dim)).sum(dim)", "b).sum(dim)"),
    ],
)
def test_a_wrong_correlation_is_noticed(given, assert_same, monkeypatch, right, wrong):
    monkeypatch.setattr(dist, "pearson", mutated(correlation, right, wrong).pearson)
    with pytest.raises(AssertionError, match="not close"):
        compare(given, assert_same, dist, (5, 4))


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


@pytest.mark.parametrize("agree", [True, False])
def test_one_item_of_two_classes_agrees_or_does_not(agree):
    """Two numbers correlate by 1 or -1, whatever they are: there is no slope."""
    student = torch.tensor([[0.3, 1.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[0.1, 0.2 if agree else 0.0]], dtype=torch.float64)
    inter, intra = dist_losses(student, teacher, 4.0)
    (gradient,) = torch.autograd.grad(inter, student)
    assert inter.item() == pytest.approx(0 if agree else 32, abs=1e-9)
    assert intra == 0
    assert gradient.abs().max() < 1e-9


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trains_the_student_only(given, assert_trains, dtype):
    assert_trains(Dist(), given.batch(dtype=dtype))


def test_weights_scale_their_own_term(given):
    batch = given.batch()
    one = Dist(dist_weight=1).loss(batch)
    two = Dist(ce_weight=2, dist_weight=3, inter_weight=5, intra_weight=7).loss(batch)
    ce = torch.nn.CrossEntropyLoss()(batch.student.logits, batch.targets)
    torch.testing.assert_close(one["ce"], ce)
    torch.testing.assert_close(two["ce"], 2 * one["ce"])
    torch.testing.assert_close(two["inter"], 15 * one["inter"])
    torch.testing.assert_close(two["intra"], 21 * one["intra"])
    own = dist_losses(batch.student.logits, batch.teacher.logits, 4.0)
    default = Dist().loss(batch)
    torch.testing.assert_close(
        (default["inter"], default["intra"]), (2 * own[0], 2 * own[1])
    )


def test_refuses_a_temperature_that_is_not_positive():
    with pytest.raises(UserError, match="temperature must be > 0"):
        Dist.configured({"temperature": -4})
