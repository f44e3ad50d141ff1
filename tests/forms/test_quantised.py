"""int8 after training: the arithmetic, in float64; files; what stays float."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import nn
from torch.nn.utils import prune

from kdbench.engine.teacher import weights_hash
from kdbench.forms import quantised
from kdbench.forms.quantised import int8_dynamic, int8_weights
from kdbench.measure.size import macs, parameters, serialised

pytest.importorskip("torchao")
BOTH = pytest.mark.parametrize("quantise", [int8_dynamic, int8_weights])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def afresh():
    """What is found out once for a process is found out anew, before and after."""

    def clear() -> None:
        quantised.missing.cache_clear()
        quantised.inexact.cache_clear()

    clear()
    yield
    clear()


def network() -> nn.Module:
    """(B, 3, 8, 8) -> (B, 4), after some training, in train mode."""
    made = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding="same", groups=4),
        nn.Flatten(),
        nn.Linear(256, 33),
        nn.ReLU(),
        nn.Linear(33, 4),
    )
    optimiser = torch.optim.SGD(made.parameters(), lr=0.05, momentum=0.9)
    for _ in range(10):
        inputs = torch.randn(32, 3, 8, 8)
        labels = inputs.mean((2, 3)).argmax(1)
        optimiser.zero_grad()
        F.cross_entropy(made(inputs), labels).backward()
        optimiser.step()
    return made


def stored(layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The file's int8 weights, and scales that multiply them, in float64."""
    state = layer.state_dict()
    scale = state["weight_scale"].double()
    broad = [-1] + [1] * (state["weight"].ndim - 1)
    return state["weight"].double(), scale.view(broad)


def test_weights_are_within_half_a_step_of_their_channel():
    before = network()
    after = int8_weights(before)
    for path in "0357":
        weight = before.get_submodule(path).weight.detach().double()
        numbers, scale = stored(after.get_submodule(path))
        largest = weight.abs().flatten(1).amax(1)
        assert torch.allclose(scale.flatten(), largest / 127.5, rtol=1e-6)
        assert (
            (weight - numbers * scale).abs().le(scale * 0.5001).all()
        )  # 127.5 in float32
        assert after.get_submodule(path).state_dict()["weight"].dtype == torch.int8


@BOTH
@pytest.mark.parametrize("rows", [1, 17])
def test_a_dense_layer_in_float64(quantise, rows):
    layer = nn.Linear(96, 24)
    inputs = torch.randn(rows, 96) * torch.rand(rows, 1) * 5
    inputs[:, 0] = 1.01 * inputs.abs().amax(1)  # of -127.5 steps, rounding tells
    numbers, scale = stored(quantise(layer))
    x = inputs.double()
    if quantise is int8_dynamic:
        step = x.abs().amax(1, keepdim=True) / 127.5
        x = (x / step).round().clamp(-128, 127) * step
    exact = x @ (numbers * scale).T + layer.bias.double()
    given = quantise(layer)(inputs)
    assert given.dtype == torch.float32
    assert torch.allclose(given.double(), exact, rtol=1e-6, atol=2e-6)


def test_what_int8_dynamic_may_be_off_by():
    layer = nn.Linear(96, 24)
    inputs = torch.randn(40, 96)
    off = (int8_dynamic(layer)(inputs) - layer(inputs)).abs().double()
    x, w = inputs.double().abs(), layer.weight.detach().double().abs()
    row, channel = x.amax(1, keepdim=True) / 255, w.amax(1) / 255  # half a step
    most = row * w.sum(1) + x.sum(1, keepdim=True) * channel + 96 * row * channel
    assert (off <= most + 1e-6).all()
    assert off.max() > 1e-4  # something is rounded


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(6, 8, 3, stride=2, groups=2), (6, 11)),
        (nn.Conv2d(3, 8, 3, padding="same", dilation=2), (3, 9, 9)),
        (
            nn.Conv2d(4, 8, 3, 2, 1, bias=False).to(memory_format=torch.channels_last),
            (4, 8, 8),
        ),
        (nn.Conv3d(2, 5, 3, padding=1), (2, 4, 5, 6)),
    ],
)
def test_convolutions_in_float64(layer, shape):
    inputs = torch.randn(2, *shape)
    after = int8_weights(layer)
    numbers, scale = stored(after)
    exact = copy.deepcopy(layer).double()
    exact.weight.data = numbers * scale
    assert torch.allclose(after(inputs).double(), exact(inputs.double()), atol=2e-6)
    assert after.weight.stride() == layer.weight.stride()


@BOTH
def test_a_state_is_plain_and_gives_the_same_answers_to_the_bit(quantise):
    inputs = torch.randn(5, 3, 8, 8)
    first, second = quantise(network()), quantise(network())
    for value in first.state_dict().values():
        assert type(value) is torch.Tensor
    before = second(inputs)
    second.load_state_dict(load(serialised(first)))
    assert not torch.equal(before, first(inputs))
    assert torch.equal(second(inputs), first(inputs))
    assert weights_hash(second) == weights_hash(first)
    third = copy.deepcopy(first)
    assert torch.equal(third(inputs), first(inputs))


@BOTH
def test_a_state_that_does_not_fit_is_refused_by_name(quantise):
    after = quantise(nn.Sequential(nn.Linear(8, 4)))
    whole = after.state_dict()
    for name in whole:
        part = {k: v for k, v in whole.items() if k != name}
        with pytest.raises(RuntimeError, match=r"Missing key.*0\."):
            after.load_state_dict(part)
    with pytest.raises(RuntimeError, match=r"size mismatch for 0\.weight"):
        after.load_state_dict(quantise(nn.Sequential(nn.Linear(9, 4))).state_dict())
    with pytest.raises(RuntimeError, match=r"Unexpected key.*0\.other"):
        after.load_state_dict({**whole, "0.other": torch.zeros(1)})


@BOTH
def test_counts_stay_and_the_file_is_smaller(quantise):
    before = network()
    after = quantise(before)
    one = torch.randn(1, 3, 8, 8)
    assert parameters(after) == parameters(before)
    assert macs(after, one) == macs(before.eval(), one) > 0
    saved = 3 * (256 * 33 + 33 * 4)  # bytes of a weight, less names and scales
    assert len(serialised(before)) - len(serialised(after)) > saved - 600
    wide = nn.Sequential(nn.Linear(500, 300))
    assert len(serialised(quantise(wide))) < 0.27 * len(serialised(wide))


@BOTH
def test_the_original_is_left_alone(quantise):
    before = network()
    state = {k: v.clone() for k, v in before.state_dict().items()}
    after = quantise(before)
    assert before.training
    assert not any(module.training for module in after.modules())
    for value in after.state_dict().values():
        value.zero_()
    for name, value in before.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert all(p.requires_grad for p in before.parameters())


@BOTH
def test_tokens_and_attention(quantise):
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    before = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    after = quantise(before)
    texts = torch.randn(3, 7, 16)
    with torch.no_grad():
        off = (after(texts) - before(texts)).abs().max()
    assert 0 < off < 0.05
    attention = after.layers[0].self_attn
    assert type(attention.in_proj_weight) is nn.Parameter
    assert type(attention.out_proj.weight) is nn.Parameter


def test_what_stays_float():
    class Cosine(nn.Linear):
        def forward(self, inputs):
            return F.linear(F.normalize(inputs), F.normalize(self.weight))

    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    masked = prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5)
    padded = nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect")
    others = (nn.Embedding(9, 4), nn.BatchNorm1d(4))
    for layer in (Cosine(4, 4), normed, masked, padded, *others):
        for quantise in (int8_dynamic, int8_weights):
            with pytest.raises(ValueError, match="no plain dense layer"):
                quantise(nn.Sequential(layer))
    with pytest.raises(ValueError, match="Conv2d has no plain dense layer"):
        int8_dynamic(nn.Conv2d(1, 4, 3))
    mixed = int8_weights(nn.Sequential(Cosine(4, 4), nn.Linear(4, 2)))
    assert type(mixed[0]) is Cosine
    assert mixed[0].weight.dtype == torch.float32


@BOTH
def test_a_layer_in_two_places_stays_one(quantise):
    shared = nn.Linear(8, 8)
    before = nn.ModuleDict({"a": shared, "b": shared, "c": nn.Sequential(shared)})
    after = quantise(before)
    assert after["a"] is after["b"] is after["c"][0]
    assert parameters(after) == 72


def test_an_input_of_zeros_and_a_channel_of_zeros():
    layer = nn.Linear(8, 3)
    layer.weight.data[1] = 0
    for quantise in (int8_dynamic, int8_weights):
        after = quantise(layer)
        assert torch.equal(after(torch.zeros(2, 8)), layer.bias.expand(2, 3))
        assert after(torch.randn(2, 8))[:, 1].eq(layer.bias[1]).all()


def test_without_torchao_it_says_what_to_install(monkeypatch, afresh):
    monkeypatch.setattr(quantised.util, "find_spec", lambda name: None)
    for quantise in (int8_dynamic, int8_weights):
        with pytest.raises(ValueError, match=r"pip install 'kdbench\[quant\]'"):
            quantise(nn.Linear(2, 2))


def test_with_an_old_torchao_it_says_which(monkeypatch, afresh):
    monkeypatch.setattr(quantised.metadata, "version", lambda name: "0.14.1")
    assert quantised.missing() == (
        "int8 needs torchao >= 0.15, not 0.14.1: pip install -U torchao"
    )


@pytest.mark.parametrize("version", ["0.15rc1", "1.0.0a1+cpu", "unknown"])
def test_any_version_of_torchao_is_read(monkeypatch, afresh, version):
    monkeypatch.setattr(quantised.metadata, "version", lambda name: version)
    assert quantised.missing() is None


def test_a_torchao_without_metadata_is_tried(monkeypatch, afresh):
    def version(name):
        raise quantised.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(quantised.metadata, "version", version)
    assert quantised.missing() is None


def test_with_a_torchao_that_does_not_fit_it_says_so(monkeypatch, afresh):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    assert f"does not work with torch {torch.__version__}" in quantised.missing()


def test_a_processor_that_overflows_is_found_out(monkeypatch, afresh):
    def saturating(left, right):
        products = left.int().unsqueeze(2) * right.int().unsqueeze(0)
        pairs = products[:, ::2] + products[:, 1::2]  # as without VNNI
        return pairs.clamp(-32768, 32767).sum(1, dtype=torch.int32)

    layer = nn.Linear(4, 4)
    int8_dynamic(layer)
    quantised.inexact.cache_clear()
    monkeypatch.setattr(torch, "_int_mm", saturating)
    with pytest.raises(ValueError, match="overflow"):
        int8_dynamic(layer)
    int8_weights(layer)
