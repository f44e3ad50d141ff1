"""What `kdbench profile` takes for a network, and what it says of all else."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

import kdbench.profiles
from kdbench import profile_cli
from kdbench.api import Dataset, UserError
from kdbench.exporting import export
from kdbench.measure.size import macs
from kdbench.plugins_cli import loads_plugins
from kdbench.profiles import tried
from kdbench.profiles.targets import Finder
from kdbench.recording import weights_path
from kdbench.records import Record
from kdbench.store import write_record
from kdbench.weights import Trained, read_state, write

app = typer.Typer()
loads_plugins(app)(profile_cli.profile)


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"])


def refused(*arguments):
    error = run(*arguments).exception
    assert isinstance(error, UserError), error
    return str(error)


# --- finished runs and files ----------------------------------------------------------


@pytest.fixture(scope="module")
def trained(run_digits, tmp_path_factory):
    """The folder of a tiny run, and its records by cell."""
    out = tmp_path_factory.mktemp("out")
    strategies = ["kd", "kd/int8_weights", "simkd"]
    changes = {"pairs": ["digits-conv"], "strategies": strategies, "epochs": 1}
    failed, records = run_digits(out, **changes)
    assert failed == 0
    return out / "digits", records


@pytest.fixture
def student(trained):
    folder, records = trained
    [record] = [r for r in records.values() if r.run.label == "kd"]
    return folder, record


def same_weights(module, folder, record: Record):
    state = read_state(weights_path(folder, record.id))
    return all(torch.equal(v, state[k]) for k, v in module.state_dict().items())


@pytest.mark.parametrize("how", ["id", "beginning", "label", "record", "weights"])
def test_a_run_by_whatever_names_it(student, host, how):
    folder, record = student
    names = {
        "id": record.id,
        "beginning": record.id[:6],
        "label": "kd",
        "record": str(folder / f"{record.id}.json"),
        "weights": str(weights_path(folder, record.id)),
    }
    target = Finder(host, folder=folder).find(names[how])
    assert target.title == f"digits/{record.run.pair}/kd#0"
    assert target.dataset.name == "digits"
    assert target.model == record.run.students[0]
    assert same_weights(target.module, folder, record)
    assert not target.module.training


@pytest.mark.parametrize("label", ["kd/int8_weights", "simkd"])
def test_a_run_that_deploys_another_network(trained, host, label):
    folder, records = trained
    [record] = [r for r in records.values() if r.run.label == label]
    if record.status != "finished":
        pytest.skip(str(record.reason))
    module = Finder(host, folder=folder).find(label).module
    assert same_weights(module, folder, record)
    one = host.dataset("digits").example(1)
    assert macs(module, one) == record.measures["macs"]


def test_a_run_in_the_named_folder_comes_before_a_model(trained, host):
    folder, records = trained
    [teacher] = [r for r in records.values() if r.run.is_teacher]
    [name] = teacher.run.students
    run = Finder(host, folder=folder).find(name)
    assert run.title == f"digits/{name}#0"
    assert same_weights(run.module, folder, teacher)
    assert Finder(host, dataset="digits").find(name).title == name
    student = "mlp_32"  # which no run there is called
    assert Finder(host, dataset="digits", folder=folder).find(student).by_name


@pytest.mark.parametrize("label", ["kd", "kd/int8_weights"])
def test_an_exported_student(trained, host, tmp_path, label):
    folder, records = trained
    [record] = [r for r in records.values() if r.run.label == label]
    if record.status != "finished":
        pytest.skip(str(record.reason))
    out = tmp_path / "kd"
    export(record, host, folder, out, "safetensors")
    target = Finder(host).find(str(out / "student.safetensors"))
    assert target.title == f"digits/{record.run.pair}/{label}#0"
    assert (target.dataset.name, target.by_name) == ("digits", False)
    assert same_weights(target.module, folder, record)
    assert "is a folder" in refused(out)
    (out / "student.json").write_text('{"run": {}}')
    assert "export the run again" in refused(out / "student.safetensors")
    (out / "student.json").unlink()
    assert "with student.json beside it" in refused(out / "student.safetensors")


def test_other_inputs_are_no_advice_for_a_run(student, host, monkeypatch):
    folder, _ = student
    target = Finder(host, folder=folder).find("kd")
    untaken = dataclasses.replace(target, module=nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"cannot take the items [^-]*$"):
        tried(untaken)
    tried(target)

    def build(*_given):
        raise ValueError("no such size")

    monkeypatch.setattr(Dataset, "build", build)
    assert "such size" in refused("kd", "--from", folder)
    assert "--dataset" not in refused("kd", "--from", folder)
    assert "--dataset" in refused("mlp_32", "-d", "digits")


def test_a_teachers_file(trained, host, tmp_path):
    folder, records = trained
    [record] = [r for r in records.values() if r.run.is_teacher]
    file = tmp_path / "big.safetensors"
    state = read_state(weights_path(folder, record.id))
    write(file, state, Trained(record=record))
    target = Finder(host).find(str(file))
    assert (target.title, target.model) == ("big.safetensors", record.run.students[0])
    assert same_weights(target.module, folder, record)


def test_a_run_is_weighed_with_its_own_data(student, monkeypatch):
    monkeypatch.setattr(kdbench.profiles, "timings", lambda *_given, **_wanted: [])
    folder, record = student
    [profile] = json.loads(run(record.id, "--from", folder, "--json").stdout)[
        "profiles"
    ]
    for name in ("parameters", "macs", "size_bytes"):
        assert profile["sizes"][name] == record.measures[name]
    assert "trained on digits, not on mnist" in refused(
        record.id, "--from", folder, "-d", "mnist"
    )


def test_a_run_whose_weights_are_gone_or_others(student, host, tmp_path):
    folder, record = student
    write_record(tmp_path, record)
    with pytest.raises(UserError, match="are not at"):
        Finder(host, folder=tmp_path).find(record.id)
    state = read_state(weights_path(folder, record.id))
    first = next(iter(state))
    write(weights_path(tmp_path, record.id), {**state, first: state[first] + 1})
    with pytest.raises(UserError, match="other weights"):
        Finder(host, folder=tmp_path).find(record.id)


# --- mistakes -------------------------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_name_that_nothing_has(nowhere):
    message = refused("resnet21")
    assert "'resnet20'" in message
    assert "no folder of results" in message
    assert "no file" not in message


def test_a_path_that_is_nothing_to_profile(nowhere):
    (nowhere / "folder").mkdir()
    (nowhere / "student.onnx").write_bytes(b"")
    assert "an empty name" in refused("")
    assert "folder is a folder; name a run in it with --from folder" in refused(
        "folder"
    )
    assert "does not read .onnx files; profile reads" in refused("student.onnx")
    for text in ("folder/student", "other.onnx"):
        assert refused(text).startswith(f"no file {text}, and unknown model")


def test_a_run_that_is_not_there(student):
    folder, record = student
    assert record.run.label in refused("kdd", "--from", folder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("resnet8", "-r", "onx"), "did you mean 'onnx'"),
        (("resnet8", "--precision", "int4"), "did you mean 'int8'"),
        (("resnet8", "--threads", 100_000), "may use"),
        (("resnet8", "-d", "cifar1000"), "did you mean 'cifar100'"),
        (("resnet8", "-d", "diabetes"), "--dataset"),
        (("resnet8/int8_wieghts",), "int8_weights"),
        (("torchvision:resnet19",), "resnet18"),
        (("bag_64",), "reads tokens"),
        (("nowhere.json",), "no file nowhere.json"),
        (("nowhere.safetensors",), "no file nowhere.safetensors"),
    ],
)
def test_mistakes_are_said(nowhere, arguments, words):
    assert words in refused(*arguments)


def test_a_file_of_other_weights_says_what_to_do(nowhere):
    file = nowhere / "other.safetensors"
    write(file, {"weight": torch.zeros(2)})
    assert "give the model's name" in refused(file)
    torch.save({"weight": torch.zeros(2)}, nowhere / "torch.safetensors")
    assert "--name" not in refused(file)
    assert "--name" not in refused(nowhere / "torch.safetensors")
    assert "not a safetensors file" in refused(nowhere / "torch.safetensors")


def test_a_model_that_is_fitted_is_what_it_learned(nowhere, host):
    fitted = [o.thing.name for o in host.all("models") if o.thing.learner == "fitted"]
    if not fitted:
        pytest.skip("no plugin with a fitted model is installed")
    assert "name a run" in refused(fitted[0], "-d", "digits")


def test_a_speed_record_is_no_network(nowhere):
    file = nowhere / "speed.json"
    speed = {"model": "mlp_32", "dataset": "digits", "measures": {}, "environment": {}}
    file.write_text(json.dumps(speed | {"finished_at": "2026-01-01T00:00:00+00:00"}))
    assert "'mlp_32'" in refused(file)
