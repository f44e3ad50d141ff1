"""bfloat16 by recipe: the arithmetic of the networks, never that of the losses."""

from __future__ import annotations

import sys
from copy import deepcopy

import pytest
import torch

from kdbench.engine.solo import _Bfloat16
from kdbench.models.convnet import convnet
from kdbench.models.taps import TappedModel
from kdbench.plugins import Host

WATCHING = """
from dataclasses import dataclass
import torch, torch.nn.functional as F
from kdbench import Strategy, hookimpl

INSIDE, answers = [], set()

@dataclass(frozen=True, kw_only=True)
class Watching(Strategy):
    '''kd in a loop of its own; sees what the layers give.'''
    name = "watching"
    paper = "a test"

    def train(self, context):
        student, teacher = context.students[0], context.teachers[0]
        student.stem[0].register_forward_hook(
            lambda m, a, out: INSIDE.append((m.training, out.dtype)))
        optimiser = context.optimiser(student.parameters())
        for _ in context.epochs():
            student.train()
            for batch in context.batches():
                with torch.no_grad():
                    target = teacher(batch.inputs)
                logits = student(batch.inputs)
                answers.update((target.dtype, logits.dtype))
                loss = F.mse_loss(logits, target)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                context.log("mse", loss.detach())
        return student

@hookimpl
def kdbench_strategies():
    return [Watching]
"""


@pytest.fixture(scope="module")
def in_bfloat16(run_digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("bf16")
    _, records = run_digits(
        out,
        precision="bfloat16",
        pairs=["digits-conv"],
        strategies=["scratch", "kd", "fitnet", "split_transfer"],
    )
    return records


def test_networks_answer_in_float32_and_compute_in_bfloat16():
    spec = convnet(6)
    module = spec.build((1, 8, 8), 10).eval()
    inputs = torch.randn(4, 1, 8, 8)
    exact = TappedModel(spec, module, ["stage2", "pooled"])(inputs)
    rough = TappedModel(spec, module, ["stage2", "pooled"], "bfloat16")(inputs)
    assert {rough.logits.dtype, *(f.dtype for f in rough.features.values())} == {
        torch.float32
    }
    error = (rough.logits - exact.logits).abs().max() / exact.logits.abs().max()
    assert 1e-5 < error < 0.05
    torch.testing.assert_close(
        rough.features["stage2"], exact.features["stage2"], rtol=0.05, atol=0.05
    )


@pytest.mark.slow
def test_runs_finish_and_differ_from_float32(in_bfloat16, whole):
    for label in ("scratch", "kd", "fitnet"):
        cell = f"digits-conv/{label}/0"
        assert in_bfloat16[cell].status == "finished"
        assert in_bfloat16[cell].weights_sha256 != whole[cell].weights_sha256
        top1 = in_bfloat16[cell].measures["top1"]
        assert abs(top1 - whole[cell].measures["top1"]) < 15


def test_what_drives_its_own_loop_computes_in_bfloat16_too(in_bfloat16, whole):
    cell = "digits-conv/split_transfer/0"
    record, exact = in_bfloat16[cell], whole[cell]
    assert record.status == "finished"
    assert record.weights_sha256 != exact.weights_sha256
    assert abs(record.measures["top1"] - exact.measures["top1"]) < 15


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_an_own_loop_is_measured_in_float32(tmp_path, run_digits, precision):
    """And answered in float32 by teachers and students, whose layers were rough."""
    file = tmp_path / "watching.py"
    file.write_text(WATCHING)
    host = Host(files=[file])
    changes = {"pairs": ["digits-conv"], "strategies": ["watching"], "epochs": 1}
    _, records = run_digits(tmp_path, host, precision=precision, **changes)
    record, module = (
        records["digits-conv/watching/0"],
        sys.modules["kdbench_file_watching"],
    )
    assert record.status == "finished"
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    assert {d for training, d in module.INSIDE if training} == {kind}
    assert {d for training, d in module.INSIDE if not training} == {torch.float32}
    assert module.answers == {torch.float32}
    assert record.curves["top1"][-1] == record.measures["top1"]


def exact(net, x):
    return torch.nn.functional.linear(x, net[0].weight, net[0].bias)


def test_networks_that_raise_leave_no_bfloat16_behind():
    def fails(module, inputs):
        raise KeyError("inside")

    net = torch.nn.Sequential(torch.nn.Linear(64, 64))
    arithmetic = _Bfloat16([net], torch.device("cpu"))
    handle = net[0].register_forward_pre_hook(fails)
    x = torch.randn(8, 64)
    with pytest.raises(KeyError):
        net(x)
    assert not torch.is_autocast_enabled("cpu")
    handle.remove()
    assert net(x).dtype == torch.float32
    assert not torch.equal(net(x), exact(net, x))
    arithmetic.remove()
    assert torch.equal(net(x), exact(net, x))


def test_a_copy_of_a_network_is_measured_in_float32_too():
    """A moving average of the student that is deployed, say."""
    net = torch.nn.Sequential(torch.nn.Linear(64, 64))
    arithmetic = _Bfloat16([net], torch.device("cpu"))
    average, x = deepcopy(net), torch.randn(8, 64)
    assert not torch.equal(average(x), exact(net, x))
    arithmetic.paused = True
    assert torch.equal(net(x), exact(net, x))
    assert torch.equal(average(x), exact(net, x))


def test_alone_equals_in_company(in_bfloat16, run_digits, helpers, tmp_path):
    _, records = run_digits(
        tmp_path, precision="bfloat16", pairs=["digits-conv"], strategies=["kd"]
    )
    for cell, record in records.items():
        assert helpers["bits"](record) == helpers["bits"](in_bfloat16[cell])
