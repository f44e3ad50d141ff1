"""`kdbench profile`: what it finds, weighs and prints, and what it says of mistakes."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

import kdbench.profiles
from kdbench import profile_cli
from kdbench.api import UserError
from kdbench.forms import quantised
from kdbench.measure.machine import cores
from kdbench.measure.size import serialised
from kdbench.plugins_cli import loads_plugins
from kdbench.records import Timing

app = typer.Typer()
loads_plugins(app)(profile_cli.profile)


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


@pytest.mark.parametrize("as_json", [True, False])
def test_an_interruption_of_the_first_prints_nothing_measured(monkeypatch, as_json):
    def timings(*_given, **_wanted):
        raise KeyboardInterrupt

    monkeypatch.setattr(kdbench.profiles, "timings", timings)
    result = run("mlp_32", "-d", "digits", *["--json"] * as_json)
    assert result.exit_code == 130
    if as_json:
        assert json.loads(result.stdout)["profiles"] == []
    else:
        assert result.stdout == ""


BAD = """
import torch
from torch import nn
from kdbench.api import Compression, Model, hookimpl


class Strange(nn.Module):
    def forward(self, inputs):
        raise RuntimeError("a strange network")


class NoCopy(nn.Identity):
    def __deepcopy__(self, memo):
        raise TypeError("cannot be copied")


class Absent(nn.Module):
    def forward(self, inputs):
        import nowhere_to_be_found


@hookimpl
def kdbench_models():
    def net(module):
        return lambda *size: nn.Sequential(nn.Flatten(), module())

    def dense():
        return nn.Sequential(NoCopy(), nn.Linear(64, 10))

    more = {"summary": "bad", "taps": {"stage1": "0"}, "classifier": "1"}
    return [
        Model(name="strange", build=net(Strange), **more),
        Model(name="absent", build=net(Absent), **more),
        Model(name="no_copy", build=net(dense), **more),
    ]
"""


@pytest.fixture
def bad(tmp_path):
    """A plugin's file with models that cannot be used."""
    file = tmp_path / "bad.py"
    file.write_text(BAD)
    return file


def test_every_network_is_tried_before_the_first_is_timed(timed, bad):
    message = refused("mlp_32", "strange", "-d", "digits", "--plugin", bad)
    assert "strange cannot take the items of 'digits'" in message
    assert message.endswith("a strange network\n  give other inputs with --dataset")
    assert timed == []


def test_an_error_keeps_what_was_measured(timed, monkeypatch):
    def timings(module, *_given, **_wanted):
        if len(timed):
            raise UserError("no")
        timed.append(module)
        return [timing("eager", "float32", 1)]

    monkeypatch.setattr(kdbench.profiles, "timings", timings)
    result = run("mlp_32", "convnet_6", "-d", "digits", "--json")
    assert isinstance(result.exception, UserError)
    assert [p["title"] for p in json.loads(result.stdout)["profiles"]] == ["mlp_32"]


def test_a_network_that_cannot_be_copied_has_no_int8_size(timed, bad):
    [profile] = in_json("no_copy", "-d", "digits", "--plugin", bad)["profiles"]
    assert profile["sizes"]["size_int8_bytes"] is None
    [note] = [note for note in profile["notes"] if "size_int8_bytes" in note]
    assert "cannot be copied" in note
    assert profile["sizes"]["parameters"] == 650


@pytest.mark.parametrize("known", [True, False])
def test_the_int8_size_is_computed_once(timed, monkeypatch, known):
    def size(module):
        sizes.append(module)
        return (7, "") if known else (None, "no torchao")

    sizes = []
    monkeypatch.setattr(kdbench.profiles, "int8_bytes", size)
    [profile] = in_json("mlp_32", "-d", "digits")["profiles"]
    assert len(sizes) == 1
    assert profile["sizes"]["size_int8_bytes"] == (7 if known else None)
    assert profile["notes"] == ([] if known else ["size_int8_bytes: no torchao"])


def test_other_inputs_are_no_advice_where_a_package_is_missing(bad, monkeypatch):
    message = refused("absent", "-d", "digits", "--plugin", bad)
    assert "nowhere_to_be_found" in message
    assert "--dataset" not in message
    lacking = "int8 needs torchao: pip install it"
    monkeypatch.setattr(quantised, "missing", lambda: lacking)
    message = refused("mlp_32/int8_weights", "-d", "digits")
    assert message.endswith(lacking)


def test_a_compressed_model_beside_itself(timed):
    pytest.importorskip("torchao")
    names = ("mlp_32", "mlp_32/int8_weights")
    whole, int8 = in_json(*names, "-d", "digits")["profiles"]
    assert int8["title"] == "mlp_32/int8_weights"
    assert int8["sizes"]["size_bytes"] == whole["sizes"]["size_int8_bytes"]
    assert int8["sizes"]["macs"] == whole["sizes"]["macs"]
    assert int8["sizes"]["size_int8_bytes"] is None
    assert any("size_int8_bytes" in note for note in int8["notes"])


# --- for real -------------------------------------------------------------------------


def test_real_times_of_a_tiny_model():
    options = ("-r", "eager", "--precision", "float32", "--threads", 1)
    [profile] = in_json("mlp_32", "-d", "digits", *options)["profiles"]
    [found] = profile["timings"]
    low, middle, high = found["latency_ms"]
    assert 0 < low <= middle <= high < 1000
    assert found["difference"] < 1e-6
    assert found["batch"] >= 1
