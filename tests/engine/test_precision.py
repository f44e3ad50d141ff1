"""bfloat16 by recipe: the arithmetic of the networks, never that of the losses."""

from __future__ import annotations

import pytest
import torch

from kdbench.models.convnet import convnet
from kdbench.models.taps import TappedModel


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


def test_runs_finish_and_differ_from_float32(in_bfloat16, whole):
    for label in ("scratch", "kd", "fitnet"):
        cell = f"digits-conv/{label}/0"
        assert in_bfloat16[cell].status == "finished"
        assert in_bfloat16[cell].weights_sha256 != whole[cell].weights_sha256
        top1 = in_bfloat16[cell].measures["top1"]
        assert abs(top1 - whole[cell].measures["top1"]) < 15


def test_what_drives_its_own_loop_is_skipped_with_the_reason(in_bfloat16):
    record = in_bfloat16["digits-conv/split_transfer/0"]
    assert record.status == "skipped"
    assert "float32" in record.reason


def test_alone_equals_in_company(in_bfloat16, run_digits, helpers, tmp_path):
    _, records = run_digits(
        tmp_path, precision="bfloat16", pairs=["digits-conv"], strategies=["kd"]
    )
    for cell, record in records.items():
        assert helpers["bits"](record) == helpers["bits"](in_bfloat16[cell])
