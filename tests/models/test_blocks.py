"""The blocks of the image models against their papers' formulas."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from kdbench.models.mobilenet import InvertedResidual
from kdbench.models.resnet import basic, bottleneck
from kdbench.models.shufflenet import GroupedUnit, Shuffle, SplitUnit
from kdbench.models.wide_resnet import PreActivation


def test_a_shuffle_takes_one_channel_of_each_group_in_turn():
    maps = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert Shuffle(2)(maps).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert Shuffle(3)(maps).flatten().tolist() == [0, 2, 4, 1, 3, 5]


def residual(block, x):
    return (block.body(x) + (block.shortcut(x) if len(block.shortcut) else x)).relu()


def pre_activation(block, x):
    active = block.norm(x).relu()
    return block.body(active) + (block.shortcut(active) if block.shortcut else x)


def appending(block, x):
    mean = sum(  # of nine, the padding counted as zeros
        F.pad(x, (1, 1, 1, 1))[:, :, i : i + 8 : 2, j : j + 8 : 2] / 9
        for i in range(3)
        for j in range(3)
    )
    return torch.cat([block.body(x), mean], dim=1).relu()


@pytest.mark.parametrize(
    ("make", "formula"),
    [
        (partial(basic, 6, 6, 1), residual),
        (partial(basic, 6, 12, 2), residual),
        (partial(bottleneck, 6, 3, 2), residual),
        (partial(PreActivation, 6, 6, 1), pre_activation),
        (partial(PreActivation, 6, 12, 2), pre_activation),
        (partial(InvertedResidual, 6, 6, 1, 2), lambda block, x: block.body(x) + x),
        (partial(InvertedResidual, 6, 6, 2, 2), lambda block, x: block.body(x)),
        (partial(InvertedResidual, 6, 8, 1, 2), lambda block, x: block.body(x)),
        (partial(GroupedUnit, 12, 12, 1), lambda block, x: (block.body(x) + x).relu()),
        (partial(GroupedUnit, 12, 36, 2), appending),
    ],
)
def test_blocks_compute_their_papers_formula(make, formula):
    torch.manual_seed(0)
    block = make()
    images = torch.randn(2, 12 if isinstance(block, GroupedUnit) else 6, 8, 8)
    expected = formula(block, images)
    torch.testing.assert_close(block(images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_shufflenetv2_block_is_the_papers(stride):
    """ReLU on what is new alone, then concatenation and shuffle: values, gradients."""
    torch.manual_seed(0)
    unit = SplitUnit(8, 8 if stride == 1 else 12, stride)
    images = torch.randn(4, 8, 6, 6).relu()

    def papers(inputs):
        if stride == 1:
            kept, new = inputs[:, :4], unit.body(inputs[:, 4:]).relu()
        else:
            kept, new = unit.kept(inputs).relu(), unit.body(inputs).relu()
        pairs = torch.stack([kept, new], dim=2)  # channel by channel in turn
        return pairs.flatten(1, 2)

    answers, gradients = [], []
    for block in (unit, papers):
        inputs = images.clone().requires_grad_()
        answers.append(block(inputs.relu()))
        answers[-1].square().sum().backward()
        gradients.append(inputs.grad)
    assert torch.equal(*answers)
    torch.testing.assert_close(*gradients)
