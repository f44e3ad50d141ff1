"""Peak activation memory: hand counts, and what torch's profiler saw allocated."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from kdbench.measure.size import activation_bytes
from kdbench.models.convnet import convnet
from kdbench.models.mlp import mlp
from kdbench.models.shufflenet import SHUFFLENETS


def test_an_mlp_by_hand():
    """The input, and the widest layer before and after its ReLU."""
    model = mlp(512, 256).build((1, 28, 28), 10).eval()
    assert activation_bytes(model, torch.zeros(1, 1, 28, 28)) == 4 * (784 + 2 * 512)


def small_convnet(in_place=False):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(in_place),
        nn.Conv2d(4, 8, 3, stride=2, padding=1),
        nn.Flatten(),
        nn.Linear(8 * 16, 10),
    )


def test_a_convnet_by_hand():
    maps = 4 * 8 * 8
    one = torch.zeros(1, 1, 8, 8)
    assert activation_bytes(small_convnet(), one) == 4 * (64 + maps + maps)


def test_in_place_and_views_count_once():
    """The most is alive in the second convolution: its maps beside the first's."""
    one = torch.zeros(1, 1, 8, 8)
    expected = 4 * (64 + 4 * 64 + 8 * 16)
    assert activation_bytes(small_convnet(in_place=True), one) == expected


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        y = self.second(self.first(x).relu())
        return y + x


def test_a_residual_network_by_hand():
    """While the second block adds: the network's input, its own, its maps, the sum."""
    model = nn.Sequential(Residual(), Residual())
    one = torch.zeros(1, 4, 8, 8)
    assert activation_bytes(model, one) == 4 * (4 * one.numel())
    # In one block alone the input that it adds is the network's.
    assert activation_bytes(model[:1], one) == 4 * (3 * one.numel())


class WithWeights(nn.Module):
    """Uses its weight turned around (a view) or doubled (another tensor)."""

    def __init__(self, doubled, kept=False):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6, 5))
        self.register_buffer("shift", torch.zeros(6))
        self.doubled = doubled
        self.kept = kept
        self.copy = None

    def forward(self, x):
        weight = self.weight
        if self.kept:
            if self.copy is None:
                self.copy = weight * 2
            weight = self.copy
        elif self.doubled:
            weight = weight * 2
        return (x @ weight.t()).add_(self.shift)


@pytest.mark.parametrize(
    ("options", "numbers"),
    [((False,), 5 + 6), ((True,), 5 + 6 + 30), ((True, True), 5 + 6)],
    ids=["a view", "made in each pass", "made in the first pass"],
)
def test_weights_are_no_activations(options, numbers):
    assert activation_bytes(WithWeights(*options), torch.zeros(1, 5)) == 4 * numbers


def test_other_types_weigh_what_they_weigh():
    model = mlp(512, 256).build((1, 28, 28), 10).eval().to(torch.bfloat16)
    one = torch.zeros(1, 1, 28, 28, dtype=torch.bfloat16)
    assert activation_bytes(model, one) == 2 * (784 + 2 * 512)


def test_without_data_it_is_the_same():
    model = small_convnet()
    one = torch.zeros(1, 1, 8, 8)
    with torch.device("meta"):
        sketch = small_convnet()
    assert activation_bytes(sketch, one.to("meta")) == activation_bytes(model, one)


def test_it_is_the_same_each_time_and_leaves_no_gradient():
    model = convnet(6).build((1, 8, 8), 10).eval()
    one = torch.zeros(1, 1, 8, 8)
    first = activation_bytes(model, one)
    assert [activation_bytes(model, one) for _ in range(3)] == [first] * 3
    assert model(one).requires_grad
    assert all(p.grad is None for p in model.parameters())


def allocated(model, one):
    """Most bytes that torch's allocator had handed out, and the input."""
    with torch.no_grad():
        model(one)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            model(one)
    events = [
        e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"
    ]
    total = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak + one.nbytes


def test_torchs_profiler_counts_the_same():
    model = mlp(512, 256).build((1, 28, 28), 10).eval()
    one = torch.zeros(1, 1, 28, 28)
    assert activation_bytes(model, one) == allocated(model, one)


@pytest.mark.parametrize("spec", SHUFFLENETS, ids=[s.name for s in SHUFFLENETS])
def test_the_profiler_sees_what_kernels_use_beside_it(spec):
    model = spec.build((3, 32, 32), 100).eval()
    one = torch.zeros(1, 3, 32, 32)
    ours = activation_bytes(model, one)
    assert ours <= allocated(model, one) < 2 * ours
