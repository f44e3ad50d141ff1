"""int8 as a stage after any strategy: the models, what they refuse, and real runs."""

from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from kdbench.api import Dataset, Model, UserError
from kdbench.compressions import kdbench_compressions
from kdbench.data.digits import DIGITS
from kdbench.forms import quantised
from kdbench.models.convnet import convnet
from kdbench.models.mlp import mlp
from kdbench.models.taps import probe
from kdbench.recording import weights_path
from kdbench.students import finished_student

pytest.importorskip("torchao")
NAMES = ("int8_dynamic", "int8_weights")
FORMS = {"int8_dynamic": quantised.int8_dynamic, "int8_weights": quantised.int8_weights}
SIZE = ((1, 8, 8), 10)


def compressed(name: str, base: Model) -> Model:
    [found] = [c for c in kdbench_compressions() if c.name == name]
    return found.model(base)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def images() -> torch.Tensor:
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def trained(model: Model) -> torch.nn.Module:
    """A network that is not at its start, in eval mode."""
    network = model.build(*SIZE)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    return network.eval()


def test_names_and_what_they_do():
    offers = kdbench_compressions()
    assert tuple(offer.name for offer in offers) == NAMES
    assert not any(offer.tunes for offer in offers)
    assert all(offer.missing() is None for offer in offers)


def test_without_torchao_both_say_what_to_install(monkeypatch):
    sentence = "int8 needs torchao"
    monkeypatch.setattr(quantised, "missing", lambda: sentence)
    assert [offer.missing() for offer in kdbench_compressions()] == [sentence] * 2


def test_only_int8_dynamic_needs_the_processor(monkeypatch):
    monkeypatch.setattr(quantised, "inexact", lambda: "overflows")
    assert [o.missing() for o in kdbench_compressions()] == ["overflows", None]


def test_the_finished_student_is_copied_and_quantised(name):
    base = convnet(6)
    model = compressed(name, base)
    assert model.name == f"convnet_6/{name}"
    student = trained(base)
    before = copy.deepcopy(student.state_dict())
    made = model.deploy(model.from_teacher(student, *SIZE))
    assert torch.equal(made(images()), FORMS[name](student)(images()))
    assert not torch.equal(made(images()), student(images()))
    for key, value in student.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_file_fits_what_is_built_and_deployed(name):
    model = compressed(name, convnet(6))
    made = model.deploy(model.from_teacher(trained(convnet(6)), *SIZE))
    built = model.deploy(model.build(*SIZE).eval())
    built.load_state_dict(made.state_dict())
    assert torch.equal(built(images()), made(images()))


def test_taps_are_those_of_the_base(name):
    base = convnet(6)
    one, other = (
        probe(m, tuple(base.taps), DIGITS) for m in (base, compressed(name, base))
    )
    assert one.shapes == other.shapes
    assert one.paths == other.paths


def negated(network):
    network = copy.deepcopy(network)
    network.classifier.weight.data.neg_()
    return network


def test_a_base_that_is_deployed_otherwise_is_deployed_once(name):
    base = dataclasses.replace(mlp(8), deploy=negated)
    model = compressed(name, base)
    student = base.deploy(trained(base))  # as the weights of a finished run are kept
    made = model.deploy(model.from_teacher(student, *SIZE))
    assert torch.equal(made(images()), FORMS[name](student)(images()))
    fresh = trained(base)
    given = model.deploy(fresh)(images())
    assert torch.equal(given, FORMS[name](negated(fresh))(images()))


def test_what_it_refuses(name):
    tree = Model(
        name="tree", summary="", build=lambda *size: None, taps={}, classifier="",
        learner="fitted",
    )  # fmt: skip
    with pytest.raises(UserError, match="tree has no weights"):
        compressed(name, tree)
    for again in NAMES:
        with pytest.raises(UserError, match="quantised already"):
            compressed(again, compressed(name, mlp(8)))
    bare = dataclasses.replace(mlp(8), build=lambda *size: torch.nn.Flatten())
    with pytest.raises(UserError, match="Flatten has no plain dense layer"):
        compressed(name, bare).build(*SIZE)


@pytest.fixture(scope="module")
def runs(run_digits, tmp_path_factory):
    """kd, and both of its compressions: the folder and the records by label."""
    out = tmp_path_factory.mktemp("int8")
    asked = ["kd", *(f"kd/{name}" for name in NAMES)]
    failed, cells = run_digits(out, pairs=["digits-conv"], strategies=asked)
    assert failed == 0
    return out / "digits", {record.run.label: record for record in cells.values()}


def test_runs_are_measured_beside_the_student_they_come_from(runs, name):
    folder, records = runs
    before, after = records["kd"], records[f"kd/{name}"]
    assert after.run.source == before.id
    for same in ("parameters", "macs"):
        assert after.measures[same] == before.measures[same] > 0
    path = weights_path(folder, after.id)
    assert after.measures["size_bytes"] == path.stat().st_size
    assert after.measures["size_bytes"] < before.measures["size_bytes"]
    assert abs(after.measures["top1"] - before.measures["top1"]) < 5


def test_the_file_gives_the_numbers_on_record(runs, host, name):
    folder, records = runs
    record = records[f"kd/{name}"]
    feed = SimpleNamespace(device="cpu")
    _, network = finished_student(record, host, DIGITS, folder, feed, [])
    state = load_file(weights_path(folder, record.id))
    assert state["classifier.weight"].dtype == torch.int8
    data = DIGITS.load(None, False)
    inputs = (data.test.inputs.float() - data.mean[0]) / data.std[0]
    right = (network(inputs).argmax(1) == data.test.targets).double().mean()
    assert 100 * right.item() == pytest.approx(record.measures["top1"], abs=0.3)


def test_where_torchao_is_missing_the_row_says_so(monkeypatch, run_digits, tmp_path):
    quantised.missing.cache_clear()
    monkeypatch.setattr(quantised.util, "find_spec", lambda name: None)
    asked = {"strategies": ["kd/int8_weights"], "epochs": 1, "pairs": ["digits-mlp"]}
    try:
        failed, cells = run_digits(tmp_path, **asked)
    finally:
        quantised.missing.cache_clear()
    assert failed == 0
    [record] = [r for r in cells.values() if r.run.compression]
    assert record.status == "skipped"
    assert record.reason.endswith("pip install 'kdbench[quant]'")


def test_datasets_of_tokens_keep_their_vocabulary(name):
    words = Dataset(
        name="words", summary="", source="", task=DIGITS.task, input_shape=(5,),
        load=lambda folder, download: None, vocabulary=30,
    )  # fmt: skip

    def build(shape, outputs, vocabulary):
        return torch.nn.Sequential(
            torch.nn.Embedding(vocabulary, 4), torch.nn.Flatten(),
            torch.nn.Linear(20, outputs),
        )  # fmt: skip

    base = Model(
        name="bag", summary="", build=build, taps={}, classifier="2", tokens=True
    )
    assert probe(compressed(name, base), (), words).shapes == {"logits": (10,)}
