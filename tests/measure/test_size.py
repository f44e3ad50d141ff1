"""What a network weighs, by hand counts and by files; and what its arithmetic is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from kdbench.api import Finished, Task
from kdbench.forms import quantised
from kdbench.measure import SIZE, measure_all
from kdbench.measure.size import (
    bf16_bytes,
    int8_bytes,
    macs,
    parameters,
    parameters_total,
    serialised,
)
from kdbench.models.convnet import convnet
from kdbench.models.mlp import mlp

T, WIDTH, HEADS = 7, 16, 2
PROJECTIONS = 4 * T * WIDTH * WIDTH
PRODUCTS = 2 * T * T * WIDTH
STEP = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}


def test_in_total_running_statistics_count_and_counters_do_not():
    model = convnet(6).build((1, 8, 8), 10)
    channels = 6 + 6 + 12
    assert parameters_total(model) == parameters(model) + 2 * channels
    dense = mlp(512, 256).build((1, 28, 28), 10)
    assert parameters_total(dense) == parameters(dense)


class Estimator(nn.Module):
    """Keeps what it learned as bytes."""

    macs_unknown = "no network"

    def __init__(self, count):
        super().__init__()
        self.parameter_count = count

    def forward(self, inputs):
        return inputs

    def get_extra_state(self):
        return torch.arange(9, dtype=torch.uint8)

    def set_extra_state(self, state):
        """It has no use for it."""


@pytest.mark.parametrize("count", [None, 650])
def test_bytes_of_an_estimator_are_no_numbers(count):
    model = Estimator(count)
    assert parameters_total(model) == parameters(model) == count
    assert bf16_bytes(model) is None
    assert int8_bytes(model) == (None, "it is no network of float32 numbers")


def grouped():
    return nn.Conv2d(8, 16, 3, padding=1, groups=4), (8, 10, 10), 16 * 100 * 9 * 2


def depthwise():
    return nn.Conv2d(8, 8, 3, padding=1, groups=8), (8, 10, 10), 8 * 100 * 9


def per_token():
    return nn.Linear(WIDTH, 4), (T, WIDTH), T * WIDTH * 4


def recurrent(kind, two_ways):
    """Gates by the steps, the input's products and the state's, and directions."""
    net = kind(8, 6, batch_first=True, bidirectional=two_ways)
    return net, (T, 8), STEP[kind] * T * (8 * 6 + 6 * 6) * (1 + two_ways)


class Attention(nn.Module):
    """Heads that attend to each other's places, with nothing projected."""

    def forward(self, x):
        heads = x.unflatten(2, (HEADS, -1)).transpose(1, 2)
        return F.scaled_dot_product_attention(heads, heads, heads)


def attention():
    return Attention(), (T, WIDTH), PRODUCTS


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x):
        return self.inner(x, x, x, need_weights=False)[0]


def self_attention():
    return SelfAttention(), (T, WIDTH), PROJECTIONS + PRODUCTS


def encoder():
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, batch_first=True)
    return layer, (T, WIDTH), PROJECTIONS + PRODUCTS + 2 * T * WIDTH * 32


BY_HAND = {
    "grouped": grouped,
    "depthwise": depthwise,
    "dense, for each token": per_token,
    "LSTM": lambda: recurrent(nn.LSTM, False),
    "LSTM, both ways": lambda: recurrent(nn.LSTM, True),
    "GRU": lambda: recurrent(nn.GRU, False),
    "RNN": lambda: recurrent(nn.RNN, False),
    "attention": attention,
    "self-attention": self_attention,
    "transformer layer": encoder,
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("kind", BY_HAND)
def test_macs_by_hand_with_and_without_data(kind, device):
    """torch's counter alone sees nothing of an LSTM or of attention on a CPU."""
    with torch.device(device):
        model, shape, expected = BY_HAND[kind]()
    # outside, as the fast kernels of attention are not taken in there
    assert macs(model.eval(), torch.zeros(1, *shape, device=device)) == expected


def test_counting_leaves_attention_as_fast_as_it_was():
    macs(SelfAttention().eval(), torch.zeros(1, T, WIDTH))
    assert torch.backends.mha.get_fastpath_enabled()


def test_half_the_bits_are_half_the_numbers(tmp_path):
    model = convnet(4).build((1, 8, 8), 10)
    path = tmp_path / "student.safetensors"
    save_file(model.to(torch.bfloat16).state_dict(), path)
    model = model.to(torch.float32)
    assert bf16_bytes(model) == path.stat().st_size
    state = model.state_dict()
    numbers = sum(v.numel() for v in state.values() if v.is_floating_point())
    assert len(serialised(model)) - bf16_bytes(model) == pytest.approx(
        2 * numbers, abs=16
    )  # the header may be padded otherwise


def test_int8_weights_are_a_file_of_their_own(tmp_path):
    pytest.importorskip("torchao")
    model = mlp(512, 256).build((1, 28, 28), 10)
    path = tmp_path / "student.safetensors"
    path.write_bytes(serialised(quantised.int8_weights(model)))
    found, why = int8_bytes(model)
    assert (found, why) == (path.stat().st_size, "")
    state = load_file(path)
    whole = sum(v.nbytes for v in state.values())
    weights = 784 * 512 + 512 * 256 + 256 * 10
    assert sum(v.numel() for v in state.values() if v.dtype == torch.int8) == weights
    assert weights < whole < found < 0.27 * len(serialised(model))


@pytest.mark.parametrize("form", ["int8_weights", "int8_dynamic"])
def test_int8_products_are_counted_as_others_are(form):
    pytest.importorskip("torchao")
    model = mlp(512, 256).build((1, 28, 28), 10)
    try:
        quantised_model = getattr(quantised, form)(model)
    except ValueError as error:
        pytest.skip(str(error))
    one = torch.zeros(1, 1, 28, 28)
    assert macs(quantised_model, one) == macs(model, one)
    assert parameters(quantised_model) == parameters(model)
    scales = 512 + 256 + 10
    assert parameters_total(quantised_model) == parameters_total(model) + scales


def test_where_torchao_is_missing_it_says_so(monkeypatch):
    monkeypatch.setattr(quantised, "missing", lambda: "pip install 'kdbench[quant]'")
    model = mlp(8).build((1, 8, 8), 10)
    assert int8_bytes(model) == (None, "pip install 'kdbench[quant]'")


def test_what_has_no_layer_to_quantise_has_no_int8_file():
    pytest.importorskip("torchao")
    found, why = int8_bytes(nn.LayerNorm(4))
    assert found is None
    assert "LayerNorm" in why


def test_a_quantised_network_has_no_other_forms():
    pytest.importorskip("torchao")
    model = quantised.int8_weights(mlp(8).build((1, 8, 8), 10))
    assert bf16_bytes(model) is None
    assert int8_bytes(model)[0] is None


def finished(model, shape):
    return Finished(
        model=model.eval(),
        task=Task(outputs=10),
        device="cpu",
        sample=torch.zeros(256, *shape),
        logits=torch.zeros(0, 10),
        targets=torch.zeros(0),
        teacher_logits=None,
    )


def test_all_of_them_without_a_problem():
    model = mlp(512, 256).build((1, 28, 28), 10)
    each_run = measure_all(SIZE, "run", finished(model, (1, 28, 28)))
    each_model = measure_all(SIZE, "model", finished(model, (1, 28, 28)))
    assert each_run.problems == each_model.problems == []
    weights = 784 * 512 + 512 * 256 + 256 * 10
    assert each_run.numbers == {
        "parameters": weights + 778,
        "parameters_total": weights + 778,
        "macs": weights,
        "size_bytes": len(serialised(model)),
    }
    assert each_model.numbers["activation_bytes"] == 4 * (784 + 512 + 512)
    assert each_model.numbers["size_bf16_bytes"] == bf16_bytes(model)


def test_an_estimator_without_a_problem_either():
    values = measure_all(SIZE, "model", finished(Estimator(None), (8,)))
    assert values.problems == []
    assert values.numbers["size_bf16_bytes"] is None
    assert values.numbers["size_int8_bytes"] is None
