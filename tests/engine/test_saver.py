"""Checkpoints on a time budget; one that cannot be written fails nobody."""

from __future__ import annotations

import errno
import os

import pytest

from kdbench.engine import checkpoint
from kdbench.engine.saver import Saver


def full(_handle):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def raises(error):
    def state():
        raise error

    return state


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("kdbench.engine.saver.monotonic", lambda: now[0])
    return now


def test_it_is_due_by_the_budget_after_the_last(tmp_path, clock):
    saver = Saver(tmp_path, 60.0)
    clock[0] += 59
    assert not saver.due()
    clock[0] += 2
    assert saver.due()
    saver.put("r", lambda: {"n": 1})
    assert not saver.due()


def test_a_full_disk_is_noted_once_and_tried_again(tmp_path, clock, monkeypatch):
    notes = []
    saver = Saver(tmp_path, 60.0, notes.append)
    saver.put("r", lambda: {"n": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for n in (2, 3):
            clock[0] += 61
            assert saver.due()
            saver.put("r", lambda n=n: {"n": n})
    assert notes == [
        "a checkpoint could not be written: No space left on device; training goes on, "
        "and a stop now would lose 61 s"
    ]
    assert checkpoint.load(tmp_path, "r")["n"] == 1
    saver.tell_losses()
    assert "up to 122 s of training are done again" in notes[-1]
    saver.put("r", lambda: {"n": 4})
    assert checkpoint.load(tmp_path, "r")["n"] == 4
    before = len(notes)
    saver.tell_losses()
    assert len(notes) == before  # nothing is lost any more


def test_no_memory_for_a_checkpoint_is_noted_too(tmp_path):
    notes = []
    saver = Saver(tmp_path, 60.0, notes.append)
    saver.put("r", raises(RuntimeError("[enforce fail] can't allocate memory")))
    assert "not enough memory" in notes[0]


def test_what_a_strategy_breaks_is_its_own_failure(tmp_path):
    saver = Saver(tmp_path, 60.0)
    with pytest.raises(RuntimeError, match="no state"):
        saver.put("r", raises(RuntimeError("no state")))
