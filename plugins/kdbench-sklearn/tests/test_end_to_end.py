"""Through the host: planned, trained, measured, stored, and made the same way again."""

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def records(tmp_path_factory, host, run_suite):
    out = tmp_path_factory.mktemp("classic")
    failed, records = run_suite(
        out,
        host,
        pairs=["conv-linear-svm", "conv-tree", "forest-mlp"],
        strategies=["scratch", "kd[temperature=2]", "teacher_features"],
        epochs=1,
    )
    assert not failed
    return out / "classic-ml", records


def test_every_student_learned(records):
    _, found = records
    students = {k: r for k, r in found.items() if not k.endswith("teacher")}
    assert {r.status for r in students.values()} == {"finished", "skipped"}
    for name, record in students.items():
        if record.status == "finished" and not name.startswith("forest-mlp"):
            assert record.measures["top1"] > 50, name
            assert record.measures["agreement"] is not None
            assert record.cost["train_s"] > 0


def test_what_is_skipped_says_why(records):
    _, found = records
    skipped = {k: r.reason for k, r in found.items() if r.status == "skipped"}
    assert list(skipped) == ["forest-mlp/teacher_features"]
    assert "mlp_bn_8_8 learns by gradients" in skipped["forest-mlp/teacher_features"]


def test_size_is_that_of_what_is_deployed(records):
    folder, found = records
    svm = found["conv-linear-svm/scratch"]
    composite = found["conv-linear-svm/teacher_features"]
    assert svm.measures["parameters"] == 650
    assert composite.measures["parameters"] == 28192 + 650
    assert found["conv-tree/scratch"].measures["parameters"] is None
    for record in (svm, composite):
        assert record.measures["macs"] is None
        file = folder / "weights" / f"{record.id}.safetensors"
        assert record.measures["size_bytes"] == file.stat().st_size


def test_weights_answer_as_the_record_says(records, host):
    """The stored estimator, loaded in a fresh module, reaches the recorded accuracy."""
    folder, found = records
    record = found["conv-tree/kd[temperature=2]"]
    dataset = host.dataset("digits")
    module = dataset.build(host.model("decision_tree"))
    module.load_state_dict(load_file(folder / "weights" / f"{record.id}.safetensors"))
    data = dataset.load(None, False)
    inputs = (data.test.inputs.float() - data.mean[0]) / data.std[0]
    right = (module(inputs).argmax(1) == data.test.targets).double().mean()
    assert 100 * right.item() == pytest.approx(record.measures["top1"])


@pytest.mark.slow
def test_again_is_bit_identical(records, tmp_path, host, run_suite):
    _, before = records
    torch.manual_seed(99)  # what the global generator holds must not matter
    _, after = run_suite(
        tmp_path,
        host,
        pairs=["conv-linear-svm"],
        strategies=["scratch", "kd[temperature=2]"],
        epochs=1,
    )
    assert len(after) == 3  # and the teacher
    for name, record in after.items():
        assert record.weights_sha256 == before[name].weights_sha256, name
