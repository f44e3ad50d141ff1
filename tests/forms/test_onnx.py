"""ONNX files against the networks that they were made of."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest
import torch
from torch import nn

from kdbench.api import UserError
from kdbench.forms import onnx
from kdbench.forms.onnx import OnnxNetwork, quantised_onnx, to_onnx
from kdbench.models.convnet import convnet
from kdbench.models.mlp import mlp

for package in onnx.NEEDED:
    pytest.importorskip(package)

SAME = 1e-4


class Words(nn.Module):
    """(B, L) tokens -> (B, 3), the mean of vectors that are not padding."""

    def __init__(self):
        super().__init__()
        self.embeddings = nn.Embedding(20, 8, padding_idx=0)
        self.classifier = nn.Linear(8, 3)

    def forward(self, tokens):
        count = (tokens != 0).sum(1, keepdim=True)
        return self.classifier(self.embeddings(tokens).sum(1) / count)


def draws(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def used(module, inputs):
    """A network whose batch norms have seen something."""
    module.train()
    with torch.no_grad():
        module(inputs)
    return module.eval()


CASES = {
    "mlp": lambda: (mlp(16, batch_norm=True).build((1, 8, 8), 10), draws(40, 1, 8, 8)),
    "convnet": lambda: (convnet(6).build((1, 8, 8), 10), draws(40, 1, 8, 8)),
    "tokens": lambda: (Words(), torch.randint(1, 20, (40, 6))),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """A network, inputs, its outputs, and its file."""
    torch.manual_seed(0)
    module, inputs = CASES[request.param]()
    module = used(module, inputs)
    with torch.no_grad():
        return module, inputs, module(inputs), to_onnx(module, inputs)


def off(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize(("items", "threads"), [(1, 1), (7, 2), (40, 1)])
def test_a_file_gives_the_networks_outputs_for_a_batch_of_any_size(
    case, items, threads
):
    _, inputs, outputs, file = case
    found = OnnxNetwork(file, threads)(inputs[:items])
    assert found.shape == outputs[:items].shape
    assert off(found, outputs[:items]) < SAME


def test_an_int8_file_is_smaller_and_close(case):
    _, inputs, outputs, file = case
    small = quantised_onnx(file, inputs)
    difference = off(OnnxNetwork(small, 1)(inputs), outputs)
    assert SAME < difference < 0.1  # it is int8, and it is this network
    assert b"QuantizeLinear" in small
    weights = sum(p.numel() for p in case[0].parameters() if p.dim() > 1)
    if weights > 1000:
        assert len(small) < len(file)


def test_int8_ranges_are_those_of_the_sample(case):
    """Inputs a hundred times smaller: their ranges cut off what is larger."""
    _, inputs, outputs, file = case
    if not inputs.is_floating_point():
        pytest.skip("tokens have no range")
    narrow = quantised_onnx(file, inputs / 100)
    assert off(OnnxNetwork(narrow, 1)(inputs), outputs) > 0.1


def test_an_example_of_one_item_is_enough():
    module = mlp(8).build((1, 4, 4), 3).eval()
    inputs = draws(5, 1, 4, 4)
    file = to_onnx(module, inputs[:1])
    with torch.no_grad():
        assert off(OnnxNetwork(file, 1)(inputs), module(inputs)) < SAME


def test_names_are_those_asked_for():
    import onnx as package

    module = mlp(8).build((1, 4, 4), 3)
    file = to_onnx(module, draws(2, 1, 4, 4), input_name="image", output_name="scores")
    graph = package.load_from_string(file).graph
    assert [one.name for one in graph.input] == ["image"]
    assert [one.name for one in graph.output] == ["scores"]
    sizes = graph.input[0].type.tensor_type.shape.dim
    assert [size.dim_value or size.dim_param for size in sizes] == ["batch", 1, 4, 4]


def test_int8_weights_have_a_scale_for_each_channel():
    import onnx as package

    module = mlp(8).build((4,), 3).eval()
    inputs = draws(8, 4)
    graph = package.load_from_string(
        quantised_onnx(to_onnx(module, inputs), inputs)
    ).graph
    shapes = [tuple(one.dims) for one in graph.initializer if "scale" in one.name]
    assert {(8,), (3,)} <= set(shapes)


class Louder(nn.Module):
    def forward(self, inputs):
        return 2 * inputs if self.training else inputs


def test_the_network_is_left_in_train_mode_and_its_file_is_not():
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), Louder()).train()
    inputs = draws(6, 4)
    file = to_onnx(module, inputs)
    assert module.training
    assert all(part.training for part in module)
    assert module[1].num_batches_tracked == 0
    with torch.no_grad():
        expected = module.eval()(inputs)
    assert off(OnnxNetwork(file, 1)(inputs), expected) < SAME


class Depends(nn.Module):
    """Python asks for a value: nothing that could be traced."""

    def forward(self, inputs):
        return inputs * 2 if inputs.sum().item() > 0 else inputs


@pytest.mark.parametrize("module", [mlp(8).build((4,), 3), Depends()])
def test_nothing_is_printed_logged_or_warned_of(module, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            to_onnx(module, draws(2, 4))
        except UserError as error:
            assert "Depends" in str(error)  # noqa: PT017 - of one case only
    assert [str(warning.message) for warning in said] == []
    assert capfd.readouterr() == ("", "")
    loud = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert loud == []
    assert logging.root.manager.disable == 0


def test_what_is_raised_comes_out_of_the_quiet(capfd):
    def speaks():
        with onnx.quiet():
            print("graph")
            print("graph", file=sys.stderr)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        speaks()
    assert capfd.readouterr() == ("", "")
    print("heard")
    assert capfd.readouterr().out == "heard\n"


def test_what_cannot_be_exported_says_so_in_one_sentence():
    with pytest.raises(UserError, match="cannot export this Depends") as error:
        to_onnx(Depends(), draws(2, 4))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 450


def test_a_missing_package_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr(onnx, "NEEDED", ("onnx", "onnx_that_is_not_there"))
    words = onnx.missing()
    assert words.startswith("onnx_that_is_not_there not installed")
    assert "pip install 'kdbench[onnx]'" in words
    for act in (
        lambda: to_onnx(nn.Identity(), draws(2, 4)),
        lambda: quantised_onnx(b"", draws(2, 4)),
        lambda: OnnxNetwork(b"", 1),
    ):
        with pytest.raises(UserError, match="onnx_that_is_not_there"):
            act()
