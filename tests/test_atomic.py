"""Files are written whole or not at all, and a failure says what to do."""

from __future__ import annotations

import errno
import os
import pickle

import pytest

from kdbench.atomic import Unwritable, clear_unfinished, write_whole


def full(_handle):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_parts_become_one_file(tmp_path):
    write_whole(tmp_path / "new" / "f", b"one", memoryview(b"two"))
    assert (tmp_path / "new" / "f").read_bytes() == b"onetwo"


def test_the_old_file_is_kept_where_asked(tmp_path):
    for content in (b"1", b"2", b"3"):
        write_whole(tmp_path / "f", content, keep=tmp_path / "before")
    assert (tmp_path / "f").read_bytes() == b"3"
    assert (tmp_path / "before").read_bytes() == b"2"


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    for content in (b"1", b"2"):
        write_whole(tmp_path / "f", content, keep=tmp_path / "before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unwritable) as caught:
        write_whole(tmp_path / "f", b"3", keep=tmp_path / "before")
    assert str(caught.value).startswith(
        f"cannot write {tmp_path / 'f'}: No space left on device; "
    )
    assert "the same command goes on" in str(caught.value)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        "f": b"2",
        "before": b"1",
    }


def test_it_reaches_another_process_as_it_is(tmp_path):
    (tmp_path / "file").write_text("in the way of a folder")
    with pytest.raises(Unwritable) as caught:
        write_whole(tmp_path / "file" / "f", b"1")
    sent = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert isinstance(sent, Unwritable)
    assert str(sent) == str(caught.value)


def test_two_processes_do_not_share_an_unfinished_file(tmp_path, monkeypatch):
    seen = []

    def look(handle):
        seen.append({p.name for p in tmp_path.iterdir()})

    monkeypatch.setattr(os, "fsync", look)
    write_whole(tmp_path / "f", b"1")
    write_whole(tmp_path / "f", b"2")
    [first], [second] = ({n for n in x if n.endswith(".tmp")} for x in seen[::2])
    assert first != second


def test_what_a_killed_process_left_is_cleared(tmp_path):
    (tmp_path / ".f.0123abcd.tmp").write_bytes(b"half")
    (tmp_path / ".other.0123abcd.tmp").write_bytes(b"half")
    write_whole(tmp_path / "f", b"1")
    clear_unfinished(tmp_path / "f")
    assert {p.name for p in tmp_path.iterdir()} == {"f", ".other.0123abcd.tmp"}
