"""Vectors as maps of 1x1, and batch norm of one such item."""

import torch
from kdbench_feature_matching.maps import Norm, as_map


def test_vectors_become_maps(given):
    vectors, maps = given.normal(2, 3), given.normal(2, 3, 4, 5)
    assert torch.equal(as_map(vectors), vectors.reshape(2, 3, 1, 1))
    assert as_map(maps) is maps


def test_norm_is_batch_norm_where_there_is_a_variance(given):
    norm, plain = Norm(3), torch.nn.BatchNorm2d(3)
    for shape in ((2, 3, 1, 1), (1, 3, 2, 2), (4, 3, 2, 1)):
        maps = given.normal(*shape).float()
        torch.testing.assert_close(norm(maps), plain(maps), rtol=0, atol=0)
    torch.testing.assert_close(norm.state_dict(), plain.state_dict(), rtol=0, atol=0)
    single = given.normal(1, 3, 1, 1).float()
    torch.testing.assert_close(norm(single), plain.eval()(single))
    torch.testing.assert_close(norm.state_dict(), plain.state_dict(), rtol=0, atol=0)
