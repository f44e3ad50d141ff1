"""Checkpoints: atomic, checksummed, the last whole one is used."""

from __future__ import annotations

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
    assert checkpoint.load(tmp_path, "r")["number"] == 1


def test_without_any_whole_one_there_is_none(tmp_path):
    saved(tmp_path, 1, 2)
    for path in paths(tmp_path):
        path.write_bytes(b"torn")
    assert checkpoint.load(tmp_path, "r") is None


def test_another_runs_file_is_not_taken(tmp_path):
    saved(tmp_path, 1)
    paths(tmp_path)[0].rename(tmp_path / "s.ckpt")
    assert checkpoint.load(tmp_path, "s") is None


def test_discard_leaves_nothing(tmp_path):
    saved(tmp_path, 1, 2)
    checkpoint.discard(tmp_path, "r")
    assert list(tmp_path.iterdir()) == []
