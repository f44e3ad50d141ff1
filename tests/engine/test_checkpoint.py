"""Checkpoints: atomic, checksummed, the last whole one is used."""

from __future__ import annotations

import hashlib
import io

import pytest
import torch

from kdbench.engine import checkpoint


def paths(folder):
    return folder / "r.ckpt", folder / "r.previous.ckpt"


def saved(folder, *numbers):
    for number in numbers:
        checkpoint.save(folder, "r", {"number": number, "t": torch.arange(number)})


def test_a_state_comes_back(tmp_path):
    saved(tmp_path, 3)
    state = checkpoint.load(tmp_path, "r")
    assert state["number"] == 3
    assert torch.equal(state["t"], torch.arange(3))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "gone"])
def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path, damage):
    saved(tmp_path, 1, 2)
    newest, _ = paths(tmp_path)
    content = bytearray(newest.read_bytes())
    if damage == "truncated":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
    elif damage == "empty":
        newest.write_bytes(b"")
    else:
        newest.unlink()
    said = []
    assert checkpoint.load(tmp_path, "r", said.append)["number"] == 1
    assert len(said) == (damage != "gone")  # killed between two renamings: as it goes
    assert all(x.endswith("it goes on from the one before it") for x in said)


def test_without_any_whole_one_there_is_none(tmp_path):
    saved(tmp_path, 1, 2)
    for path in paths(tmp_path):
        path.write_bytes(path.read_bytes()[:-1])
    said = []
    assert checkpoint.load(tmp_path, "r", said.append) is None
    assert said == [
        "its checkpoint is damaged and the one before it is damaged: it starts again"
    ]


def test_where_there_is_none_nothing_is_said(tmp_path):
    said = []
    assert checkpoint.load(tmp_path, "r", said.append) is None
    assert said == []


@pytest.mark.parametrize("version", ["FORMAT", "ENGINE"])
def test_one_of_another_version_is_recognised(tmp_path, monkeypatch, version):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, version, 99)
        saved(tmp_path, 1)
    said = []
    assert checkpoint.load(tmp_path, "r", said.append) is None
    assert said == ["its checkpoint is of another version of kdbench: it starts again"]


def test_one_of_before_the_versions_is_recognised(tmp_path):
    buffer = io.BytesIO()
    torch.save({"format": 1, "run": "r", "number": 1}, buffer)
    body = buffer.getvalue()
    paths(tmp_path)[0].write_bytes(hashlib.sha256(body).digest() + body)
    said = []
    assert checkpoint.load(tmp_path, "r", said.append) is None
    assert "of an older version of kdbench" in said[0]


def test_one_that_torch_cannot_read_is_said_to_be(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", lambda state, file: file.write(b"in another way"))
        saved(tmp_path, 1)
    said = []
    assert checkpoint.load(tmp_path, "r", said.append) is None
    assert "unreadable to this version of PyTorch" in said[0]


def test_another_runs_file_is_not_taken(tmp_path):
    saved(tmp_path, 1)
    paths(tmp_path)[0].rename(tmp_path / "s.ckpt")
    said = []
    assert checkpoint.load(tmp_path, "s", said.append) is None
    assert said == ["its checkpoint is of another run: it starts again"]


def test_discard_leaves_nothing(tmp_path):
    saved(tmp_path, 1, 2)
    (tmp_path / ".r.ckpt.0123abcd.tmp").write_bytes(b"half, of a killed process")
    checkpoint.discard(tmp_path, "r")
    assert list(tmp_path.iterdir()) == []
