"""Passes without data have the shapes, and the mistakes, of passes with data."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdbench.models.shapes import ShapesOnly

META = torch.device("meta")


class Widths(nn.Sequential):
    """Maps of some channels, and a batch norm that expects as many or others."""

    def __init__(self, channels, expected, **values):
        norm = nn.BatchNorm2d(expected, **values)
        super().__init__(nn.Conv2d(3, channels, 3), norm, nn.ReLU())


VALUES = [{}, {"affine": False}, {"track_running_stats": False}]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("values", VALUES, ids=str)
def test_shapes_are_those_of_a_real_pass(values, training):
    real = Widths(4, 4, **values).train(training)
    with META, torch.no_grad(), ShapesOnly():
        found = Widths(4, 4, **values).train(training)(torch.zeros(2, 3, 8, 6))
    wanted = real(torch.zeros(2, 3, 8, 6))
    assert found.is_meta
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    assert not found.requires_grad


def test_batch_norm_is_computed_of_numbers_only(monkeypatch):
    norm, inputs = nn.BatchNorm2d(4), torch.randn(2, 4, 8, 6)
    wanted = norm(inputs)
    with torch.no_grad(), ShapesOnly():
        torch.testing.assert_close(norm(inputs), wanted)
        monkeypatch.setattr(torch, "batch_norm", None)
        assert norm.to("meta")(inputs.to("meta")).shape == inputs.shape


@pytest.mark.parametrize("values", VALUES[:2], ids=str)
def test_a_batch_norm_for_other_channels_is_noticed(values):
    with META, torch.no_grad(), ShapesOnly(), pytest.raises(RuntimeError):
        Widths(4, 5, **values)(torch.zeros(2, 3, 8, 6))


def test_what_looks_at_gradients_sees_all_of_it():
    """Pruning follows them from layer to layer, where a network is built."""
    with META, torch.no_grad(), ShapesOnly(), torch.enable_grad():
        found = nn.BatchNorm2d(4)(torch.zeros(2, 4, 8, 6))
    assert "BatchNorm" in type(found.grad_fn).__name__
