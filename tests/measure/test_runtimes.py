"""The forms of a network: what each is, and that a wrong one is not timed."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import nn

from kdbench.forms import onnx, quantised
from kdbench.measure import runtimes
from kdbench.measure.runtimes import Form, Forms, NotOffered, noise, runs, threads_set
from kdbench.measure.timing import timings
from kdbench.models.convnet import convnet
from kdbench.models.mlp import mlp

CPU = torch.device("cpu")
QUICK = 0.02


def draws(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return mlp(16).build((8,), 5).eval()


@pytest.fixture(autouse=True)
def _without_grad():
    with torch.no_grad():
        yield


def times_of(network, sample, runtime, precision, **more):
    [found] = timings(
        network,
        sample,
        device="cpu",
        runtimes=[runtime],
        precisions=[precision],
        batch=4,
        seconds=QUICK,
        **more,
    )
    return found


def test_onnx_rows_agree_with_eager_and_are_timed():
    for package in onnx.NEEDED:
        pytest.importorskip(package)
    torch.manual_seed(0)
    module = convnet(6).build((1, 8, 8), 10)
    found = times_of(module, draws(32, 1, 8, 8), "onnx", "float32", threads=[2])
    assert found.reason is None
    assert 0 < found.difference < 1e-4
    assert found.latency_ms[1] > 0
    assert found.size_bytes > 4 * sum(p.numel() for p in module.parameters())


def test_int8_in_onnx_is_smaller_and_less_exact(network):
    for package in onnx.NEEDED:
        pytest.importorskip(package)
    network = mlp(256, 256).build((8,), 5)
    sample = draws(32, 8)
    exact, small = (times_of(network, sample, "onnx", p) for p in ("float32", "int8"))
    assert small.size_bytes < exact.size_bytes / 2
    assert exact.difference < 1e-4 < small.difference < 0.1


def test_int8_in_pytorch_is_dynamic_quantisation(network):
    why = quantised.missing() or quantised.inexact()
    found = times_of(network, draws(32, 8), "eager", "int8")
    assert found.reason == why
    assert why or 1e-4 < found.difference < 0.1
    norm = nn.BatchNorm1d(8)
    found = times_of(norm, draws(32, 8), "eager", "int8")
    assert found.reason == (why or quantised.nothing_dense(norm))


def test_bfloat16_casts_weights_and_inputs(network):
    sample = draws(32, 8)
    form = Forms(network, sample, CPU).form("eager", "bfloat16", 1)
    outputs = form.at(sample)()
    assert outputs.dtype == torch.bfloat16
    assert network.classifier.weight.dtype == torch.float32
    expected = nn.Sequential(network).to(torch.bfloat16)(sample.to(torch.bfloat16))
    assert torch.equal(outputs, expected)


def test_tokens_stay_tokens():
    words = torch.tensor([[1, 2], [3, 4]])
    assert runtimes.as_read(words, "bfloat16") is words
    bag = nn.EmbeddingBag(9, 3)
    form = Forms(bag, words, CPU).form("eager", "bfloat16", 1)
    assert form.at(words)().dtype == torch.bfloat16


@pytest.mark.parametrize("wrong", [0.999, float("nan"), float("inf")])
def test_a_wrong_onnx_file_is_not_timed(network, monkeypatch, wrong):
    for package in onnx.NEEDED:
        pytest.importorskip(package)
    right = runtimes.to_onnx

    def to_onnx(module, example):
        another = copy.deepcopy(module)
        another.classifier.weight.mul_(wrong)
        return right(another, example)

    monkeypatch.setattr(runtimes, "to_onnx", to_onnx)
    found = times_of(network, draws(32, 8), "onnx", "float32")
    assert "differ from eager float32" in found.reason
    assert found.latency_ms is found.throughput is found.difference is None


class Broken(nn.Module):
    """Gives zeros, or outputs of another shape."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, inputs):
        return torch.zeros(len(inputs), self.outputs)


@pytest.mark.parametrize(
    ("outputs", "says"), [(5, "differ from eager float32"), (4, "of shape")]
)
def test_a_wrong_int8_network_is_not_timed(network, monkeypatch, outputs, says):
    monkeypatch.setattr(quantised, "int8_dynamic", lambda module: Broken(outputs))
    found = times_of(network, draws(32, 8), "eager", "int8")
    assert says in found.reason
    assert found.latency_ms is found.throughput is found.difference is None


def test_the_pass_that_is_timed_is_the_one_that_is_checked(network):
    """Right for all items together, wrong for one alone."""
    sample = draws(32, 8)
    forms = Forms(network, sample, CPU)
    form = Form("eager", "float32", 1, runs(network))
    good, bad = form.at(sample), lambda: form.at(sample[:1])() + 1
    assert forms.difference(form, [good]) < 1e-6
    with pytest.raises(NotOffered, match="differ"):
        forms.difference(form, [bad, good])


def test_a_difference_is_a_share_of_the_largest_output():
    """Outputs 1 to 8; one of them off by 0.0004, and by 0.004."""
    sample = torch.arange(1.0, 9.0).view(8, 1)
    forms = Forms(nn.Identity(), sample, CPU)
    shifted = Form("onnx", "float32", 1, runs(lambda batch: batch + 0.0004))
    assert forms.difference(shifted, []) == pytest.approx(0.0004 / 8, rel=1e-2)
    with pytest.raises(
        NotOffered, match=r"by 0\.0005 of the largest, more than 0\.0001"
    ):
        forms.difference(Form("onnx", "float32", 1, runs(lambda b: b + 0.004)), [])


class Quantised(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.ones(3, 2, dtype=torch.int8))

    def forward(self, inputs):
        return inputs @ self.weight.float()


def test_a_network_that_is_quantised_already_is_int8_as_it_is():
    sample = draws(32, 3)
    found = timings(
        Quantised(),
        sample,
        device="cpu",
        runtimes=["eager"],
        precisions=["float32", "bfloat16", "int8"],
        batch=4,
        seconds=QUICK,
    )
    assert found[2].reason is None
    assert found[2].difference == 0
    assert all("float32" in one.reason for one in found[:2])


def test_what_is_missing_is_a_reason(network, monkeypatch):
    monkeypatch.setattr(onnx, "NEEDED", ("onnx_that_is_not_there",))
    found = times_of(network, draws(32, 8), "onnx", "float32")
    assert "pip install 'kdbench[onnx]'" in found.reason


def test_onnx_runtime_says_itself_why_it_has_no_bfloat16(network):
    for package in onnx.NEEDED:
        pytest.importorskip(package)
    found = times_of(network, draws(32, 8), "onnx", "bfloat16")
    assert found.reason is not None
    assert "\n" not in found.reason


def test_cuda_graphs_need_cuda(network):
    forms = Forms(network, draws(32, 8), CPU)
    with pytest.raises(NotOffered, match="CUDA device"):
        forms.form("cuda-graph", "float32", 1)


def test_threads_are_put_back_when_something_breaks():
    torch.set_num_threads(1)
    seen = []

    def breaks():
        with threads_set(2):
            seen.append(torch.get_num_threads())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        breaks()
    assert (seen, torch.get_num_threads()) == ([2], 1)


def test_noise_is_always_the_same_and_no_two_items_are_alike(host):
    digits = host.dataset("digits")
    once, again = noise(digits, 16), noise(digits, 16)
    assert once.shape == (16, *digits.input_shape)
    assert torch.equal(once, again)
    assert len(once.unique(dim=0)) == 16


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("c++")), reason="no C++")
def test_each_compiled_form_is_compiled(network):
    """torch compiles few variants of one code and runs further ones eagerly."""
    torch._dynamo.reset()
    found = timings(
        network,
        draws(32, 8),
        device="cpu",
        runtimes=["compiled"],
        precisions=["float32", "bfloat16"],
        threads=[1, 2],
        batch=4,
        seconds=QUICK,
    )
    assert [one.reason for one in found] == [None] * 4
    assert all(one.difference < 0.05 for one in found)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 8


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("runtime", ["eager", "cuda-graph"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_forms_on_a_gpu(runtime, precision):
    module = convnet(6).build((1, 8, 8), 10)
    [found] = timings(
        module,
        draws(32, 1, 8, 8),
        device="cuda",
        runtimes=[runtime],
        precisions=[precision],
    )
    assert found.reason is None
    assert 0 < found.latency_ms[0] <= found.latency_ms[1] < 10
    assert found.batch > 1
    assert found.difference < (1e-4 if precision == "float32" else 0.1)
