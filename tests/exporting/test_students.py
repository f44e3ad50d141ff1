"""Students of every kind: what their exports answer, and forms they cannot have."""

from __future__ import annotations

import re

import pytest
import torch
from exports import answers, program, test_items
from safetensors.torch import load_file

from kdbench.api import UserError
from kdbench.exporting.runs import find
from kdbench.forms import files


@pytest.mark.slow
def test_numbers_come_out_in_their_own_unit(host, train, write):
    folder = train(
        datasets=["diabetes"], pairs=["digits-mlp"], strategies=["scratch"], epochs=1
    )
    record = find(folder, "scratch")
    inputs, targets = test_items(host, "diabetes")
    about, out = write(folder, "scratch", "safetensors")
    assert about["output"]["mean"] == [pytest.approx(150, rel=0.1)]
    assert about["input"]["layout"] == "batch, numbers"
    assert len(about["input"]["mean"]) == 10
    outputs, printed = answers(out, inputs)
    wrong = (outputs - targets).square().mean().sqrt()
    assert float(wrong) == pytest.approx(record.measures["rmse"], rel=1e-4)
    assert re.fullmatch(r"answer: \[[-\d.]+\]\n", printed)
    about, out = write(folder, "scratch", "torch-export", force=True)
    network = torch.export.load(out / "student.pt2").module()
    torch.testing.assert_close(network(inputs), outputs, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("model", ["transformer_1x8", "textcnn_4", "bag_64"])
def test_texts_are_read_to_the_end_whatever_stands_in_the_example(
    host, tmp_path, model
):
    """Eager networks cut a batch to its longest text: a graph must not."""
    dataset = host.dataset("sst2")
    whole = files.Deployed(dataset.build(host.model(model))).eval()
    stream = torch.Generator().manual_seed(0)
    texts = torch.randint(1, 4096, (5, 64), generator=stream)
    for row, length in enumerate((3, 64, 10, 1, 30)):
        texts[row, length:] = 0
    form, path = files.FORMS["torch-export"], tmp_path / "it.pt2"
    form.write(whole, texts[[0, 2]], path, {})
    ask = form.read(path, lambda: whole)
    with torch.no_grad():
        for batch in (texts, texts[:1], texts[1:2]):
            torch.testing.assert_close(ask(batch), whole(batch))


@pytest.mark.slow
def test_several_heads_are_told_apart(host, train, write):
    folder = train(
        datasets=["digits_and_ink"], pairs=["digits-mlp"], strategies=["scratch"]
    )
    record = find(folder, "scratch")
    inputs, targets = test_items(host, "digits_and_ink")
    about, out = write(folder, "scratch", "onnx")
    digit, ink = about["output"]["parts"]
    assert (digit["name"], digit["first"], digit["end"]) == ("digit", 0, 10)
    assert digit["labels"] == list("0123456789")
    assert (ink["first"], ink["end"], ink["unit"]) == (10, 11, "grey levels")
    outputs, printed = answers(out, inputs)
    top1 = 100 * (outputs[:, :10].argmax(1) == targets[:, 0]).double().mean()
    assert float(top1) == pytest.approx(record.measures["top1_digit"])
    wrong = (outputs[:, 10] - targets[:, 1]).square().mean().sqrt()
    assert float(wrong) == pytest.approx(record.measures["rmse_ink"], rel=1e-4)
    assert [line.split(":")[0] for line in printed.splitlines()] == ["digit", "ink"]


def test_what_a_strategy_deploys_beyond_its_model(digits, write, tmp_path):
    """simkd ships the teacher's classifier, which bare weights cannot say."""
    with pytest.raises(UserError, match="its strategy deploys another one"):
        write(digits, "simkd", "safetensors")
    assert list(tmp_path.iterdir()) == []
    about, _ = write(digits, "simkd", "torch-export")
    assert about["proof"]["items"] == 450


@pytest.mark.slow
def test_of_maps_too_it_takes_batches_of_any_size(host, train, write):
    folder = train(pairs=["digits-conv"], strategies=["simkd"], epochs=1)
    _, out = write(folder, "simkd", "onnx")
    inputs, _ = test_items(host, "digits")
    outputs, _ = answers(out, inputs[:7])
    assert outputs.shape == (7, 10)


@pytest.mark.slow
def test_a_pruned_student_is_written_as_narrow_as_it_is(train, write):
    folder = train(pairs=["mlp-pruned-75"], strategies=["kd"], epochs=1)
    _, out = write(folder, "kd", "safetensors")
    state = load_file(out / "student.safetensors")
    assert max(len(v) for v in state.values() if v.dim() == 2) == 64  # of 256
    outputs, _ = answers(out, torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
    assert outputs.shape == (3, 10)
    write(folder, "kd", "onnx", force=True)


@pytest.mark.slow
def test_a_student_with_int8_kernels_has_no_graph(train, write, tmp_path):
    folder = train(pairs=["conv-6-int8"], strategies=["kd"], epochs=1)
    for form in ("onnx", "torch-export"):
        with pytest.raises(UserError, match=r"(?s)cannot (export|trace).*safetensors"):
            write(folder, "digits/conv-6-int8/kd", form)
        assert list(tmp_path.iterdir()) == []
    _, out = write(folder, "digits/conv-6-int8/kd", "safetensors")
    types = {v.dtype for v in load_file(out / "student.safetensors").values()}
    assert torch.int8 in types


@pytest.mark.slow
def test_a_compressed_student_is_rebuilt_by_the_page(host, train, write):
    folder = train(pairs=["digits-mlp"], strategies=["kd/int8_weights"], epochs=1)
    about, out = write(folder, "kd/int8_weights", "safetensors")
    assert 'compressed("mlp_bn_8_8", "int8_weights")' in program(out)
    inputs, targets = test_items(host, "digits")
    outputs, _ = answers(out, inputs)
    top1 = 100 * (outputs.argmax(1) == targets).double().mean()
    assert float(top1) == pytest.approx(about["measured"]["measures"]["top1"], abs=0.23)
    for form in ("safetensors", "torch-export"):  # its weights are torchao's
        about, out = write(folder, "kd/int8_weights", form, force=True)
        assert about["needs"][-1] == "torchao"
    assert "pip install torch torchao\n" in (out / "README.md").read_text()
    about, _ = write(folder, "kd/int8_weights", "onnx", force=True)
    assert about["needs"] == ["numpy", "onnxruntime"]


@pytest.mark.slow
def test_what_was_fitted_is_no_graph(host, train, write, tmp_path):
    folder = train(pairs=["conv-tree"], strategies=["scratch"], epochs=1)
    for form in ("onnx", "torch-export"):
        with pytest.raises(
            UserError, match="decision_tree was fitted without gradients"
        ):
            write(folder, "scratch", form)
        assert list(tmp_path.iterdir()) == []
    _, out = write(folder, "scratch", "safetensors")
    assert "pip install kdbench kdbench-sklearn" in (out / "README.md").read_text()
    inputs, targets = test_items(host, "digits")
    outputs, _ = answers(out, inputs)
    top1 = 100 * (outputs.argmax(1) == targets).double().mean()
    assert float(top1) == pytest.approx(find(folder, "scratch").measures["top1"])
