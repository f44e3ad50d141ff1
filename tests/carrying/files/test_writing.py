"""Writing a state that fails or is cut short, and files that change meanwhile."""

from __future__ import annotations

import os

import pytest
from carried import contents
from packed import LIMIT, laid_out, parts

from kdbench.api import UserError
from kdbench.atomic import Unwritable
from kdbench.carrying.packing import Written, write
from kdbench.carrying.state import INDEX, check, read_index, unpack
from kdbench.carrying.taking import take


@pytest.mark.parametrize("at", ["part", INDEX])
def test_an_old_state_survives_a_write_that_fails(state, files, monkeypatch, at):
    folder, index = state
    before = contents(folder)
    for path in files.values():
        path.write_bytes(path.read_bytes()[::-1])
    from kdbench.carrying import packing

    real, calls = packing.write_whole, []

    def full(path, *content):
        calls.append(path.name)
        if path.name.startswith(at) and len(calls) > 2:
            raise Unwritable(28, "No space left on device", str(path))
        real(path, *content)

    monkeypatch.setattr(packing, "write_whole", full)
    with pytest.raises(Unwritable, match="No space left"):
        write(folder, "digits", index, lambda: files, LIMIT)
    assert len(calls) > 2
    assert contents(folder) == before


def test_an_interrupt_once_the_index_is_in_place_keeps_its_parts(
    state, files, monkeypatch
):
    folder, index = state
    for path in files.values():
        path.write_bytes(path.read_bytes()[::-1])

    def interrupted(folder):
        if read_index(folder) != index:
            raise KeyboardInterrupt

    monkeypatch.setattr("kdbench.atomic._sync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(folder, "digits", index, lambda: files, LIMIT)
    check(folder, read_index(folder), "digits")
    assert read_index(folder) != index


def test_a_first_write_that_is_cut_short_is_no_state_and_no_error(
    files, tmp_path, monkeypatch
):
    from kdbench.carrying import packing

    folder, real = tmp_path / "new", packing.write_whole

    def killed(path, *content):
        real(path, *content)
        if path.name.startswith("part-"):
            raise KeyboardInterrupt

    monkeypatch.setattr(packing, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        write(folder, "digits", None, lambda: files, LIMIT)
    [left] = parts(folder)
    assert read_index(folder) is None
    monkeypatch.undo()
    index, _ = write(folder, "digits", None, lambda: dict([*files.items()][:3]), LIMIT)
    assert left not in parts(folder)
    check(folder, read_index(folder), "digits")
    (folder / INDEX).unlink()  # as by who forgot to copy it
    with pytest.raises(UserError, match=r"parts of a state: there is no state\.json"):
        read_index(folder)
    assert set(parts(folder)) == {p.file for p in index.parts}


def test_nothing_to_write_leaves_what_is_there(state, tmp_path):
    folder, index = state
    before = contents(folder)
    assert write(folder, "digits", index, dict, LIMIT)[0] == index
    assert contents(folder) == before
    write(tmp_path / "new", "digits", None, dict, LIMIT)
    assert not (tmp_path / "new").exists()


def test_what_killed_commands_left_is_cleared(state, files):
    folder, index = state
    for name in INDEX, f"part-{16 * 'a'}.tar":
        (folder / f".{name}.0123abcd.tmp").touch()
    write(folder, "digits", index, lambda: files, LIMIT)
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


def test_what_was_written_is_told_in_words(tmp_path):
    files = laid_out(tmp_path / "here", {"checkpoints/aa.ckpt": 500})
    _, written = write(tmp_path / "state", "digits", None, lambda: files, LIMIT)
    assert str(written) == "2 files, 0.0 MB (2 of them new, 0.0 MB)"
    assert str(Written(1, 0, 0, 0)).startswith("1 file,")


def test_more_runs_than_files_can_be_open_are_taken_over(tmp_path):
    resource = pytest.importorskip("resource")
    files = laid_out(tmp_path / "here", {f"{k:012x}.json": 9 for k in range(100)})
    index, _ = write(tmp_path / "state", "digits", None, lambda: files, LIMIT)
    first = os.dup(0)  # the lowest that is free
    os.close(first)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + 50, hard))
    try:
        take(tmp_path / "state", index, tmp_path / "there")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_another_process_finishes_meanwhile_is_looked_for_again(tmp_path):
    sizes = {"checkpoints/aa.ckpt": 500}
    first = laid_out(tmp_path / "here", sizes)
    then = laid_out(tmp_path / "here", {"aa.json": 40, "weights/aa.safetensors": 50})
    looks = iter([first, then])

    def find():
        found = next(looks)
        if found is first:
            first["checkpoints/aa.ckpt"].unlink()
        return found

    index, _ = write(tmp_path / "state", "digits", None, find, LIMIT)
    assert set(index.sizes) == set(then)


def test_a_file_that_changes_while_it_is_read_is_never_half_there(
    tmp_path, monkeypatch
):
    files = laid_out(tmp_path / "here", {"checkpoints/aa.ckpt": 500})
    file = files["checkpoints/aa.ckpt"]
    from kdbench.carrying import packing

    real = packing.sha256_of
    changes = iter([b"later", b"last"])

    def hashed(path):
        known = real(path)
        if path == file:
            file.write_bytes(next(changes, b"last"))
        return known

    monkeypatch.setattr(packing, "sha256_of", hashed)
    write(tmp_path / "state", "digits", None, lambda: files, LIMIT)
    unpack(tmp_path / "state", read_index(tmp_path / "state"), tmp_path / "there")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_a_file_that_changes_all_the_time_is_given_up_on(tmp_path):
    files = laid_out(tmp_path / "here", {"checkpoints/aa.ckpt": 500})
    gone = {"checkpoints/aa.ckpt": tmp_path / "nowhere"}
    with pytest.raises(Unwritable, match="all the time"):
        write(tmp_path / "state", "digits", None, lambda: files | gone, LIMIT)
