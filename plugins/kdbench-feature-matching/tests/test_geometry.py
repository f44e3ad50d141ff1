"""Unit vectors and map sizes: safe at zero, nothing resized without need."""

import pytest
import torch
from kdbench_feature_matching.geometry import (
    alike,
    as_rows,
    gram,
    shrink,
    sum_of_squares,
    unit,
)


def test_unit_vectors(given):
    x = given.normal(3, 4)
    expected = torch.stack([row / row.square().sum().sqrt() for row in x])
    torch.testing.assert_close(unit(x, dim=1), expected)


def test_zero_vectors_stay_zero_with_zero_gradient():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(unit(x, dim=1)[0].sum(), x)
    assert unit(x, dim=1).tolist()[0] == [0, 0]
    assert gradient.count_nonzero() == 0


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_gradients_are_those_of_the_definition(given, dim):
    x = given.normal(3, 4, 2)
    assert torch.autograd.gradcheck(lambda x: unit(x, dim), (x,))
    assert torch.autograd.gradcheck(lambda x: sum_of_squares(x, dim), (x,))
    assert torch.autograd.gradcheck(gram, (x,))


def test_sums_and_products_by_hand(given):
    x = given.normal(3, 4, 2)
    by_hand = (x**2).sum(2).sum(0)[None, :, None]
    torch.testing.assert_close(sum_of_squares(x, (0, 2)), by_hand)
    torch.testing.assert_close(gram(x), torch.einsum("bnd,bmd->bnm", x, x))


def test_rows_are_views_in_any_memory_format(given):
    maps = given.normal(4, 3, 2, 2).detach()
    nearby = maps.contiguous(memory_format=torch.channels_last)
    for x in (maps, nearby):
        assert as_rows(x).data_ptr() == x.data_ptr()
        torch.testing.assert_close(gram(as_rows(x)), gram(maps.flatten(1)))
    assert as_rows(maps[:, 0, 0].bfloat16()).dtype == torch.float32


def test_shrink_pools_to_the_smaller_of_each_axis(given):
    maps = given.normal(2, 3, 8, 4)
    assert shrink(maps, (2, 7, 8, 4)) is maps
    assert shrink(maps, (16, 16)) is maps
    small = shrink(maps, (4, 16))
    assert small.shape == (2, 3, 4, 4)
    by_hand = (maps[:, :, 0::2] + maps[:, :, 1::2]) / 2
    torch.testing.assert_close(small, by_hand)


def test_alike_meets_at_the_smaller_size_and_holds_the_teacher(given):
    small, large = given.normal(2, 3, 2, 4), given.normal(2, 5, 4, 2)
    student, teacher = alike(small, large.bfloat16())
    assert student.shape == (2, 3, 2, 2)
    assert teacher.shape == (2, 5, 2, 2)
    assert teacher.dtype == torch.float32
    assert student.requires_grad
    assert not teacher.requires_grad
    vectors = given.normal(2, 3), given.normal(2, 5)
    assert [x.shape for x in alike(*vectors)] == [(2, 3), (2, 5)]
