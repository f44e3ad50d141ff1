"""What `kdbench export` writes: its program answers as recorded; what files say."""

from __future__ import annotations

import base64
import hashlib
import json

import numpy as np
import onnx
import pytest
import torch
from exports import KD, WRITTEN, answers, test_items
from safetensors import safe_open

from kdbench.data.checks import loaded
from kdbench.exporting.runs import find
from kdbench.forms import files


@pytest.mark.parametrize(
    "form",
    [
        "onnx",
        pytest.param("torch-export", marks=pytest.mark.slow),
        pytest.param("safetensors", marks=pytest.mark.slow),
    ],
)
def test_the_program_of_the_page_is_right_where_the_record_says_so(
    host, digits, write, form
):
    about, out = write(digits, KD, form)
    record = find(digits, KD)
    inputs, targets = test_items(host, "digits")
    outputs, printed = answers(out, inputs)
    right = (outputs.argmax(1) == targets).numpy()
    bits = np.frombuffer(base64.b64decode(record.correct), np.uint8)
    assert np.array_equal(right, np.unpackbits(bits, count=len(right)).astype(bool))
    zeros, _ = answers(out, torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    assert printed == f"answer: {int(zeros.argmax())}\n"
    file = out / about["file"]["name"]
    assert {path.name for path in out.glob("*")} - WRITTEN - {file.name} == {
        "items.npy",
        "found.npy",
    }
    assert about["file"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert about["file"]["bytes"] == file.stat().st_size


def test_the_description_says_what_goes_in_and_comes_out(host, digits, write):
    about, out = write(digits, KD, "torch-export")
    record = find(digits, KD)
    data = loaded(host.dataset("digits"), None, False)
    given, answer = about["input"], about["output"]
    assert given["shape"] == ["batch", 1, 8, 8]
    assert (given["dtype"], given["layout"]) == (
        "uint8",
        "batch, channels, height, width",
    )
    assert given["range"] == [0, 255]
    assert given["range_of_test_items"] == [0, 240]
    assert (given["mean"], given["std"]) == (list(data.mean), list(data.std))
    [part] = answer["parts"]
    assert part["labels"] == list("0123456789")
    assert (part["first"], part["end"], part["what"]) == (0, 10, "logits")
    assert about["run"]["id"] == record.id
    assert about["run"]["strategy"] == "kd"
    assert about["measured"]["measures"]["top1"] == record.measures["top1"]
    proof = about["proof"]
    assert proof["value"] == pytest.approx(record.measures["top1"])
    assert proof["items"] == 450
    assert proof["difference"] < 1e-5
    assert f"Top-1 {record.measures['top1']:.2f}%, as recorded" in proof["sentence"]
    assert proof["sentence"] in (out / "README.md").read_text()


def test_the_files_themselves_say_which_run_they_are_of(digits, write):
    record = find(digits, KD)
    _, out = write(digits, KD, "onnx")
    model = onnx.load(out / "student.onnx")
    onnx.checker.check_model(model)
    head = {prop.key: prop.value for prop in model.metadata_props}
    assert head["kdbench_run"] == record.id
    assert json.loads(head["labels"]) == list("0123456789")
    assert not any(node.metadata_props for node in model.graph.node)  # local paths
    _, out = write(digits, KD, "safetensors", force=True)
    with safe_open(out / "student.safetensors", framework="pt") as file:
        assert file.metadata()["kdbench_run"] == record.id
    _, out = write(digits, KD, "torch-export", force=True)
    extra = {files.HEADER: ""}
    program = torch.export.load(out / "student.pt2", extra_files=extra)
    assert json.loads(extra[files.HEADER])["kdbench_run"] == record.id
    assert not any("stack_trace" in node.meta for node in program.graph.nodes)
