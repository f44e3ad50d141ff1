"""What cannot be written: why, and that what was there stays."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil

import pytest
from exports import KD, WRITTEN
from safetensors.torch import load_file, save_file

from kdbench.api import UserError
from kdbench.exporting import export
from kdbench.exporting.runs import find
from kdbench.forms import files
from kdbench.recording import weights_path
from kdbench.store import write_record


@pytest.mark.parametrize(
    ("status", "words"), [("failed", "failed"), ("skipped", "was skipped")]
)
def test_a_run_that_did_not_finish(copied, write, status, words):
    record = find(copied, KD)
    write_record(copied, record.model_copy(update={"status": status, "reason": "why"}))
    with pytest.raises(UserError, match=f"{words}, there is nothing to export: why"):
        write(copied, KD, "onnx")


def test_weights_that_are_gone_or_others(copied, write, tmp_path):
    path = weights_path(copied, find(copied, KD).id)
    state = load_file(path)
    state["classifier.bias"] += 1e-3
    save_file(state, path)
    with pytest.raises(UserError, match="other weights than the record"):
        write(copied, KD, "safetensors")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="damaged"):
        write(copied, KD, "safetensors")
    path.unlink()
    with pytest.raises(
        UserError, match=r"weights of kd are not at .*run the suite again"
    ):
        write(copied, KD, "safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["digits"]


def test_a_format_that_is_unknown_or_cannot_be_had(digits, write, monkeypatch):
    with pytest.raises(UserError, match="unknown format 'onx'; did you mean 'onnx'"):
        write(digits, KD, "onx")
    without = dataclasses.replace(files.FORMS["onnx"], missing=lambda: "no onnx here")
    monkeypatch.setitem(files.FORMS, "onnx", without)
    with pytest.raises(UserError, match="no onnx here; or take another --format"):
        write(digits, KD, "onnx")


def test_only_an_export_is_replaced_and_only_when_told(digits, write, tmp_path):
    out = tmp_path / "export"
    out.mkdir()
    (out / "README.md").write_text("mine")
    for force in (False, True):
        with pytest.raises(UserError, match="other things than an export"):
            write(digits, KD, "safetensors", force=force)
    assert (out / "README.md").read_text() == "mine"
    (out / "README.md").unlink()
    write(digits, KD, "safetensors")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="an export already; replace it with --force"):
        write(digits, KD, "torch-export")
    assert (out / "student.safetensors").is_file()
    write(digits, KD, "torch-export", force=True)
    there = {path.name for path in out.iterdir()}
    assert there == WRITTEN | {"student.pt2", "notes.txt"}
    shutil.rmtree(out)
    out.write_text("a file")
    with pytest.raises(UserError, match="is a file; give a folder"):
        write(digits, KD, "safetensors")


def test_a_replacement_that_stops_half_way_leaves_what_was_there(
    digits, write, tmp_path, monkeypatch
):
    about, out = write(digits, KD, "safetensors")
    moved = []

    def move(source, place):
        moved.append(place.name)
        if place.name == "student.json":
            raise OSError("no space left")
        return real(source, place)

    real = shutil.move
    monkeypatch.setattr(shutil, "move", move)
    with pytest.raises(UserError, match="cannot be written"):
        write(digits, KD, "torch-export", force=True)
    assert moved == ["student.pt2", "README.md", "student.json"]
    assert json.loads((out / "student.json").read_text()) == about
    weights = (out / about["file"]["name"]).read_bytes()
    assert hashlib.sha256(weights).hexdigest() == about["file"]["sha256"]


def test_a_folder_that_cannot_be_written(host, digits, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "export"
    with pytest.raises(UserError, match="cannot be written"):
        export(find(digits, KD), host, digits, out, "safetensors")
