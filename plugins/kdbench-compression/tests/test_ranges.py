"""Fake quantisation: the affine formula in float64, gradients, moving ranges."""

import copy

import torch
from kdbench_compression.ranges import (
    MovingRange,
    fake_quantised_weight,
    weight_scale,
)


def affine(x, scale, zero_point, low, high):
    """(clamp(round(x / s) + z) - z) * s, number by number."""
    levels = (min(max(round(v / scale) + zero_point, low), high) for v in x.tolist())
    values = [(q - zero_point) * scale for q in levels]
    return torch.tensor(values, dtype=torch.float64)


def moving(low, high):
    ranges = MovingRange().eval()
    ranges.low.fill_(low)
    ranges.high.fill_(high)
    return ranges


def test_activations_follow_the_formula():
    x = torch.randn(500, dtype=torch.float64) * 3
    low, high = -1.7, 5.2
    scale = (high - low) / 255
    expected = affine(x, scale, round(-low / scale), 0, 255)
    got = moving(low, high)(x.float()).double()
    wrong = (got - expected).abs() > 1e-5
    # an item within float32 rounding of a border between two values may take either
    at_border = ((x / scale) % 1 - 0.5).abs() < 1e-4
    assert not (wrong & ~at_border).any()
    assert len(got.unique()) > 100
    assert moving(low, high)(torch.zeros(1)).item() == 0


def test_weights_follow_the_formula_channel_by_channel():
    weight = (
        torch.randn(4, 3, 3, 3)
        * torch.tensor([1.0, 1e-3, 50.0, 0.0])[:, None, None, None]
    )
    got = fake_quantised_weight(weight)
    for channel, (own, fake) in enumerate(zip(weight, got, strict=True)):
        scale = max(own.abs().max().double().item() / 127, 2**-23)
        expected = affine(own.flatten().double(), scale, 0, -127, 127)
        torch.testing.assert_close(fake.flatten().double(), expected, rtol=1e-5, atol=0)
        assert len(fake.unique()) > 10 or channel == 3
    assert not got[3].any()


def test_quantised_weights_turn_with_their_sign():
    """What folding a negative batch-norm factor relies on."""
    weight = torch.randn(4, 9)
    assert torch.equal(fake_quantised_weight(-weight), -fake_quantised_weight(weight))
    factor = torch.tensor([2.0, -0.5, -4.0, 8.0])[:, None]
    folded = fake_quantised_weight(weight * factor)
    assert torch.equal(folded, fake_quantised_weight(weight) * factor)
    assert torch.equal(weight_scale(weight * 2), weight_scale(weight) * 2)


def test_gradients_pass_straight_through_and_not_where_clamped():
    x = torch.tensor([-3.0, -1.0, 0.3, 0.301, 4.9, 5.3], requires_grad=True)
    moving(-1.7, 5.2)(x).backward(torch.arange(1.0, 7.0))
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 0]
    weight = torch.randn(4, 9, requires_grad=True)
    up = torch.randn(4, 9)
    fake_quantised_weight(weight).backward(up)
    assert torch.equal(weight.grad, up)


def test_the_range_is_a_moving_average_that_holds_zero():
    ranges = MovingRange()
    ranges(torch.tensor([-1.0, 3.0]))
    assert (ranges.low.item(), ranges.high.item()) == (-1, 3)
    ranges(torch.tensor([2.0, 7.0]))  # the smallest counts as 0
    torch.testing.assert_close(ranges.low, torch.tensor(0.99 * -1))
    torch.testing.assert_close(ranges.high, torch.tensor(0.99 * 3 + 0.01 * 7))


def test_the_range_is_frozen_in_eval_mode():
    ranges = MovingRange()
    ranges(torch.randn(10))
    before = copy.deepcopy(ranges.state_dict())
    ranges.eval()(torch.randn(10) * 100)
    assert all(torch.equal(v, before[k]) for k, v in ranges.state_dict().items())
    ranges.train()(torch.randn(10) * 100)
    assert not torch.equal(ranges.high, before["high"])


def test_a_range_of_zeros_gives_zeros():
    ranges = MovingRange()
    assert not ranges(torch.zeros(5)).any()
    assert torch.isfinite(ranges.eval()(torch.randn(5))).all()
