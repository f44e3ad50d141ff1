"""`kdbench profile`: what it finds, weighs and prints, and what it says of mistakes."""

from __future__ import annotations

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

import kdbench.profiles
from kdbench import profile_cli
from kdbench.api import UserError
from kdbench.measure.machine import cores
from kdbench.measure.size import macs, serialised
from kdbench.profiles.targets import Finder
from kdbench.recording import weights_path
from kdbench.records import Record, Timing
from kdbench.store import write_record
from kdbench.weights import Trained, read_state, write

app = typer.Typer()
app.command()(profile_cli.profile)


def timing(runtime, precision, threads, **changes):
    values = {
        "batch": 64,
        "latency_ms": (0.9, 1.0, 1.1),
        "throughput": (900.0, 1000.0, 1100.0),
        "repeats": 20,
        "difference": 2e-7,
        "spread": 0.02,
        "others": 0.01,
    }
    named = {"runtime": runtime, "precision": precision, "threads": threads}
    return Timing(**named, **values | changes)


@pytest.fixture
def timed(monkeypatch):
    """What was asked to be timed, and times that are told instead of taken."""
    asked = []

    def timings(module, sample, **wanted):
        asked.append((module, sample, wanted))
        wanted["tell"]("timing")
        return [
            timing(runtime, precision, threads)
            for runtime in wanted["runtimes"]
            for precision in wanted["precisions"]
            for threads in wanted["threads"]
        ]

    monkeypatch.setattr(kdbench.profiles, "timings", timings)
    return asked


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"])


def refused(*arguments):
    error = run(*arguments).exception
    assert isinstance(error, UserError), error
    return str(error)


def in_json(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_every_form_of_a_model_by_name(timed):
    whole = in_json("convnet_6", "-d", "digits")
    [profile] = whole["profiles"]
    sizes = profile["sizes"]
    weights = 9 * 6 + 9 * 6 * 6 + 9 * 6 * 12 + 120
    assert sizes["parameters"] == weights + 2 * 24 + 10
    assert sizes["parameters_total"] == sizes["parameters"] + 2 * 24
    assert sizes["macs"] == 64 * 9 * 6 + 64 * 9 * 36 + 16 * 9 * 72 + 120
    assert sizes["flops"] == 2 * sizes["macs"]
    assert (profile["dataset"], profile["input_shape"]) == ("digits", [1, 8, 8])
    assert profile["outputs"] == 10
    [(module, sample, wanted)] = timed
    assert sizes["size_bytes"] == len(serialised(module))
    assert sizes["size_bytes"] > sizes["size_bf16_bytes"] > 0
    assert sizes["activation_bytes"] > 4 * 64
    assert sample.shape == (256, 1, 8, 8)
    assert sample.std() > 0.5  # zeros would look right whatever is computed
    assert wanted["runtimes"] == ("eager", "compiled", "onnx")
    assert wanted["precisions"] == ("float32", "bfloat16", "int8")
    assert wanted["threads"] == tuple(dict.fromkeys((1, cores())))
    assert wanted["batch"] is None
    assert len(profile["timings"]) == 9 * len(wanted["threads"])
    assert profile["timings"][0] == timing("eager", "float32", 1).model_dump(
        mode="json"
    )
    assert whole["environment"]["device"] == "cpu"
    assert whole["noisy"] is False
    assert "governor" in whole


def test_only_what_is_asked_for(timed):
    options = ("-r", "eager", "--precision", "float32", "--threads", 1, "--batch", 8)
    [profile] = in_json("mlp_32", "-d", "digits", *options)["profiles"]
    assert [t["runtime"] for t in profile["timings"]] == ["eager"]
    [(_, _, wanted)] = timed
    assert (wanted["threads"], wanted["batch"]) == ((1,), 8)


def test_the_default_dataset_is_that_of_list_models(timed):
    [profile] = in_json("resnet8")["profiles"]
    assert profile["sizes"]["parameters"] == 83_892
    assert profile["dataset"] == "cifar100"


def test_tables_for_people(timed):
    result = run("mlp_32", "convnet_6", "mlp_32", "-d", "digits", "-r", "eager")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    rows = [line for line in lines if line.startswith(("mlp_32", "convnet_6"))]
    assert len(rows) == 2 + 2 * 3 * len({1, cores()})  # one named twice counts once
    assert any("governor" in line and "thread" in line for line in lines)
    assert "Noisy:" not in result.stdout
    assert "1/2 mlp_32: timing" in result.stderr
    assert "2/2 convnet_6: timing" in result.stderr


def test_noise_is_said_in_words(timed, monkeypatch):
    def timings(*_given, **_wanted):
        return [
            timing("eager", "float32", 1, spread=0.34, others=0.5, noisy=True),
            timing("eager", "float32", 2),
        ]

    monkeypatch.setattr(kdbench.profiles, "timings", timings)
    words = " ".join(run("mlp_32", "-d", "digits").stdout.split())
    assert "Noisy: 1 of 2 timings" in words
    assert "34%" in words
    assert "50% of the cores' time" in words
    assert in_json("mlp_32", "-d", "digits")["noisy"] is True


def test_a_form_that_is_not_there_is_a_reason_not_a_row(timed, monkeypatch):
    def timings(*_given, **_wanted):
        nothing = {"latency_ms": None, "throughput": None, "reason": "no compiler"}
        return [
            timing("eager", "float32", 1),
            timing("compiled", "float32", 1, **nothing),
            timing("compiled", "bfloat16", 1, **nothing),
        ]

    monkeypatch.setattr(kdbench.profiles, "timings", timings)
    text = run("mlp_32", "-d", "digits").stdout
    assert "mlp_32, compiled float32, compiled bfloat16: no compiler" in text
    assert text.count("no compiler") == 1
    [profile] = in_json("mlp_32", "-d", "digits")["profiles"]
    assert [t["reason"] for t in profile["timings"]] == [None, *2 * ["no compiler"]]


def test_an_interruption_keeps_what_was_measured(timed, monkeypatch):
    def timings(module, *_given, **_wanted):
        if len(timed):
            raise KeyboardInterrupt
        timed.append(module)
        return [timing("eager", "float32", 1)]

    monkeypatch.setattr(kdbench.profiles, "timings", timings)
    result = run("mlp_32", "convnet_6", "-d", "digits", "--json")
    assert result.exit_code == 130
    titles = [p["title"] for p in json.loads(result.stdout)["profiles"]]
    assert titles == ["mlp_32"]
    assert "interrupted: 1 of 2" in result.stderr


def test_a_compressed_model_beside_itself(timed):
    pytest.importorskip("torchao")
    names = ("mlp_32", "mlp_32/int8_weights")
    whole, int8 = in_json(*names, "-d", "digits")["profiles"]
    assert int8["title"] == "mlp_32/int8_weights"
    assert int8["sizes"]["size_bytes"] == whole["sizes"]["size_int8_bytes"]
    assert int8["sizes"]["macs"] == whole["sizes"]["macs"]
    assert int8["sizes"]["size_int8_bytes"] is None
    assert any("size_int8_bytes" in note for note in int8["notes"])


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


def test_a_teachers_file(trained, host, tmp_path):
    folder, records = trained
    [record] = [r for r in records.values() if r.run.is_teacher]
    file = tmp_path / "big.safetensors"
    state = read_state(weights_path(folder, record.id))
    write(file, state, Trained(record=record))
    target = Finder(host).find(str(file))
    assert (target.title, target.model) == ("big.safetensors", record.run.students[0])
    assert same_weights(target.module, folder, record)


def test_a_run_is_weighed_with_its_own_data(student, timed):
    folder, record = student
    [profile] = in_json(record.id, "--from", folder)["profiles"]
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


# --- for real -------------------------------------------------------------------------


def test_real_times_of_a_tiny_model():
    options = ("-r", "eager", "--precision", "float32", "--threads", 1)
    [profile] = in_json("mlp_32", "-d", "digits", *options)["profiles"]
    [found] = profile["timings"]
    low, middle, high = found["latency_ms"]
    assert 0 < low <= middle <= high < 1000
    assert found["difference"] < 1e-6
    assert found["batch"] >= 1
