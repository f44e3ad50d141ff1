"""deploy: the same answers from int8 tensors, an independent integer oracle, size."""

import copy
import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
from kdbench_compression import deployed, int8, pruned
from kdbench_compression.kernels import exact_kernels
from kdbench_compression.quantisation import deploy
from safetensors.torch import load, save
from torch import nn

from kdbench import UserError
from kdbench.measure.size import macs, parameters, serialised
from kdbench.models import kdbench_models

HOST = {model.name: model for model in kdbench_models()}
SIZE = ((1, 8, 8), 10)
"""Of digits: shape of the inputs, number of classes."""
CASES = [
    ("convnet_32", (1, 8, 8)),
    ("convnet_6", (3, 28, 28)),
    ("mlp_bn_256_128", (1, 8, 8)),
    ("mlp_512_256", (1, 28, 28)),
    ("lenet", (1, 28, 28)),
]
needs_kernels = pytest.mark.skipif(
    "not exact_kernels()", reason="no exact int8 kernels on this machine"
)


@pytest.fixture(params=["kernels", "float"])
def computed(request, monkeypatch):
    if request.param == "float":
        monkeypatch.setattr(deployed, "exact_kernels", lambda: False)
    elif not exact_kernels():
        pytest.skip("no exact int8 kernels on this machine")
    return request.param


def assert_close(got, expected):
    """Equal, but for items with an activation at the border between two values."""
    scale = expected.abs().max()
    assert ((got - expected).abs() < 1e-4 * scale).all(1).double().mean() > 0.9
    assert (got - expected).abs().max() < 0.02 * scale
    assert (got.argmax(1) == expected.argmax(1)).double().mean() >= 0.99


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_answers_as_the_student(trained, computed, name, shape):
    student = trained(int8(HOST[name]), shape)
    inputs = torch.randn(256, *shape) * 2 + 1
    with torch.no_grad():
        assert_close(deploy(student)(inputs), student(inputs))


@needs_kernels
@pytest.mark.parametrize(("name", "shape"), CASES)
def test_weights_are_int8_in_plain_tensors(trained, name, shape):
    network = deploy(trained(int8(HOST[name]), shape))
    state = network.state_dict()
    assert all(type(v) is torch.Tensor and not v.is_quantized for v in state.values())
    stored = [v for k, v in state.items() if k.endswith(".weight")]
    assert all(v.dtype == torch.int8 for v in stored)
    assert all(v.abs().max() == 127 for v in stored)
    calls = []
    for module in network.modules():
        if isinstance(module, deployed.Int8Layer):
            module.register_forward_hook(lambda m, x, y: calls.append(y.is_quantized))
    network(torch.randn(2, *shape))
    assert calls == [True] * (len(stored) - 1) + [False]  # the last gives logits


def integers(layer, x, scale, zero_point):
    """One layer from its stored tensors in exact integers; x is (B, K) or (B, C, H, W).

    Stride 1, padding 1 and 3x3 for maps. Returns uint8 numbers.
    """
    q = np.clip(np.rint(x.double().numpy() / scale) + zero_point, 0, 255) - zero_point
    w = layer.weight.numpy().astype(np.int64)
    q = q.astype(np.int64)
    if w.ndim == 2:
        total = q @ w.T
        per_channel = layer.weight_scale.double().numpy()
        bias = layer.bias.double().numpy()
    else:
        padded = np.pad(q, ((0, 0), (0, 0), (1, 1), (1, 1)))
        high, wide = q.shape[2:]
        total = sum(
            np.einsum(
                "bchw,oc->bohw", padded[:, :, i : i + high, j : j + wide], w[..., i, j]
            )
            for i in range(3)
            for j in range(3)
        )
        per_channel = layer.weight_scale.double().numpy()[:, None, None]
        bias = layer.bias.double().numpy()[:, None, None]
    y = total * (scale * per_channel) + bias
    y = np.maximum(y, 0) if layer.relu else y
    out = layer.output
    return np.clip(np.rint(y / out.scale.item()) + out.zero_point.item(), 0, 255)


@needs_kernels
@pytest.mark.parametrize(
    ("name", "shape", "path"),
    [
        ("convnet_32", (3, 8, 8), "stem.0"),
        ("mlp_bn_256_128", (1, 8, 8), "layers.0.0"),
        ("mlp_512_256", (1, 28, 28), "layers.0.0"),
    ],
)
def test_a_layer_computes_in_exact_integers(trained, name, shape, path):
    network = deploy(trained(int8(HOST[name]), shape))
    layer = network.network.get_submodule(path)
    x = torch.randn(64, *shape) * 2 + 1
    got = []
    layer.register_forward_hook(lambda m, a, y: got.append(y.int_repr().numpy()))
    network(x)
    flat = x.flatten(1) if layer.weight.ndim == 2 else x
    scale, zero_point = network.input.scale.item(), network.input.zero_point.item()
    expected = integers(layer, flat, scale, zero_point)
    off = np.abs(got[0].astype(int) - expected)
    assert off.max() <= 1  # at a border between two values
    assert (off == 0).mean() > 0.999
    assert len(np.unique(expected)) > 50


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_a_safetensors_file_restores_it(trained, name, shape):
    model = int8(HOST[name])
    network = deploy(trained(model, shape))
    inputs = torch.randn(16, *shape)
    expected = network(inputs)
    restored = deploy(model.build(shape, 10))
    assert not torch.equal(restored(inputs), expected)  # and its kernels are packed
    restored.load_state_dict(load(save(network.state_dict())))
    assert torch.equal(restored(inputs), expected)


@pytest.mark.parametrize(
    ("name", "shape"), [("convnet_32", (1, 8, 8)), ("mlp_512_256", (1, 28, 28))]
)
def test_size_is_about_a_quarter(name, shape):
    base = HOST[name].build(shape, 10)
    network = deploy(int8(HOST[name]).build(shape, 10))
    assert 0.25 < len(serialised(network)) / len(serialised(base)) < 0.28


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_parameters_and_macs_are_counted(trained, computed, name, shape):
    base = HOST[name].build(shape, 10).eval()
    network = deploy(trained(int8(HOST[name]), shape))
    assert math.isnan(network.mac_count)  # nothing has gone through it
    norms = [
        m for m in base.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)
    ]
    # of batch norm's factor and shift, the shift stays, as the layer's bias
    folded = sum(len(norm.weight) for norm in norms)
    assert parameters(network) == parameters(base) - folded
    one = torch.randn(1, *shape)
    network(torch.randn(3, *shape))
    assert macs(network, one) == macs(base, one)


def test_the_student_is_left_as_it_is(trained):
    student = trained(int8(HOST["convnet_32"]), (1, 8, 8))
    inputs = torch.randn(4, 1, 8, 8)
    before, state = student(inputs), copy.deepcopy(student.state_dict())
    deploy(student)(inputs)
    assert torch.equal(student(inputs), before)
    assert all(torch.equal(v, state[k]) for k, v in student.state_dict().items())


def test_copies_and_pickles(trained):
    network = deploy(trained(int8(HOST["convnet_6"]), (1, 8, 8)))
    inputs = torch.randn(4, 1, 8, 8)
    expected = network(inputs)
    assert torch.equal(copy.deepcopy(network)(inputs), expected)
    again = pickle.loads(pickle.dumps(network))  # noqa: S301 (our own)
    assert torch.equal(again(inputs), expected)


def test_a_pruned_student_is_deployed_too(lived_in):
    teacher = lived_in(HOST["convnet_32"], (1, 8, 8))
    student = int8(pruned(HOST["convnet_32"], 0.75)).from_teacher(teacher, *SIZE)
    for _ in range(3):
        student(torch.randn(64, 1, 8, 8))
    student.eval()
    inputs = torch.randn(64, 1, 8, 8)
    with torch.no_grad():
        assert_close(deploy(student)(inputs), student(inputs))


class Residual(nn.Module):
    def __init__(self, shape, outputs):
        super().__init__()
        self.one, self.classifier = (
            nn.Linear(*shape, *shape),
            nn.Linear(*shape, outputs),
        )

    def forward(self, x):
        return self.classifier(x + self.one(x))


@needs_kernels
def test_refuses_what_int8_tensors_cannot_do():
    model = dataclasses.replace(HOST["mlp_256_128"], name="residual", build=Residual)
    with pytest.raises(UserError, match="residual cannot be quantised"):
        int8(model).build((4,), 3)
    with (
        pytest.raises(UserError, match="residual cannot be quantised"),
        torch.device("meta"),
    ):
        int8(model).build((4,), 3)


class Bounded(Residual):
    """A sigmoid has no int8 form of its own here: it is computed in float."""

    def __init__(self, shape, outputs):
        super().__init__(shape, outputs)
        self.bound = nn.Sigmoid()

    def forward(self, x):
        return self.classifier(self.bound(self.one(x)))


def test_other_modules_are_computed_in_float(trained, computed):
    model = dataclasses.replace(HOST["mlp_256_128"], name="bounded", build=Bounded)
    student = trained(int8(model), (20,))
    inputs = torch.randn(256, 20)
    with torch.no_grad():
        assert_close(deploy(student)(inputs), student(inputs))
