"""Size by hand counts and file size."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from kdbench.measure.size import macs, parameters, serialised
from kdbench.models.convnet import convnet
from kdbench.models.mlp import mlp


def test_an_mlp_by_hand():
    """784-512-256-10, the seed articles' teacher."""
    model = mlp(512, 256).build((1, 28, 28), 10)
    weights = 784 * 512 + 512 * 256 + 256 * 10
    assert parameters(model) == weights + 512 + 256 + 10
    assert macs(model, torch.zeros(1, 1, 28, 28)) == weights


def test_a_convnet_by_hand():
    model = convnet(6).build((1, 8, 8), 10).eval()
    convolutions = 9 * 6 + 9 * 6 * 6 + 9 * 6 * 12
    assert parameters(model) == convolutions + 2 * (6 + 6 + 12) + 12 * 10 + 10
    expected = 64 * 9 * 6 + 64 * 9 * 36 + 16 * 9 * 72 + 120
    assert macs(model, torch.zeros(1, 1, 8, 8)) == expected


def test_bytes_are_the_files(tmp_path):
    model = convnet(4).build((1, 8, 8), 10)
    path = tmp_path / "student.safetensors"
    path.write_bytes(serialised(model))
    state = load_file(path)
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    fewest = sum(v.numel() * v.element_size() for v in state.values())
    assert path.stat().st_size == len(serialised(model)) > fewest
