"""The ends of a command: whatever ends it, the state is whole, and it is told."""

from __future__ import annotations

import shutil
import signal

import pytest
from carried import After, contents, members, raising, stopped

from kdbench.api import UserError
from kdbench.atomic import Unwritable
from kdbench.carrying.state import INDEX, check, read_index
from kdbench.engine.faults import DeviceLost


def test_ctrl_c_writes_the_state_too(machines, exported, tmp_path, capsys):
    out, folder = machines.bare(), tmp_path / "new" / "state"
    stopping = After(50, interrupts=True)
    assert machines.session(out, stopping, export_state=folder).run() == 130
    said = capsys.readouterr().out
    assert said.index("state: ") < said.index("interrupted: ")
    want = {p for p in members(exported / "later") if "strategy-" not in p}
    assert members(folder) == want


def failing(session, monkeypatch, error):
    """A session in whose training this error comes up."""

    def fails(*_):
        raise error

    monkeypatch.setattr(session, "_run", fails)
    return session


@pytest.mark.parametrize("error", [DeviceLost("gone"), Unwritable(28, "full", "x")])
def test_a_machine_that_fails_leaves_a_state(machines, tmp_path, monkeypatch, error):
    out, folder = machines.bare(), tmp_path / "state"
    assert machines.session(out, After(50)).run() == 75

    def fails(*_):
        shutil.rmtree(out / "digits" / ".locks")
        (out / "digits" / ".locks").touch()  # nothing can be locked there any more
        raise error

    session = machines.session(out, export_state=folder)
    monkeypatch.setattr(session, "_run", fails)
    assert session.run() == 1
    assert len([p for p in members(folder) if p.startswith("checkpoints/")]) == 2


def test_an_error_of_a_plugin_leaves_a_state_and_is_told(
    machines, tmp_path, monkeypatch
):
    out, folder = machines.bare(), tmp_path / "state"
    assert machines.session(out, After(50)).run() == 75
    session = machines.session(out, export_state=folder)
    with pytest.raises(RuntimeError, match="an executor's own"):
        failing(session, monkeypatch, RuntimeError("an executor's own")).run()
    assert len([p for p in members(folder) if p.startswith("checkpoints/")]) == 2


def test_a_state_that_cannot_be_written_hides_no_first_error(
    machines, state, monkeypatch, capsys
):
    folder = state("early")
    session = machines.session(
        machines.bare(), import_state=folder, export_state=folder
    )
    why = Unwritable(28, "No space left on device", "x")
    monkeypatch.setattr("kdbench.carrying.write", lambda *_: raising(why))
    assert failing(session, monkeypatch, DeviceLost("it is gone")).run() == 1
    said = capsys.readouterr()
    assert "error: it is gone" in said.err
    assert "state: cannot write x: No space left" in said.out


def signalled(monkeypatch, times):
    """So many signals come while the index is written."""
    from kdbench.carrying import packing

    real = packing.write_whole

    def write_whole(path, *content):
        if path.name == INDEX:
            for _ in range(times):
                signal.raise_signal(signal.SIGTERM)
        real(path, *content)

    monkeypatch.setattr(packing, "write_whole", write_whole)


def test_a_signal_while_the_state_is_written_waits_for_it(
    machines, state, monkeypatch, capsys
):
    folder = state("early")
    before = members(folder)
    out = machines.bare()
    session = machines.session(out, After(50), import_state=folder, export_state=folder)
    signalled(monkeypatch, 1)
    assert session.run() == 130
    assert members(folder) > before or members(folder).isdisjoint(before)
    check(folder, read_index(folder), "digits")
    assert "not written" not in capsys.readouterr().out


def test_a_second_signal_while_the_state_is_written_leaves_the_old_one(
    machines, state, monkeypatch, capsys
):
    folder = state("early")
    before = read_index(folder)
    session = machines.session(
        machines.bare(), After(50), import_state=folder, export_state=folder
    )
    signalled(monkeypatch, 2)
    assert session.run() == 130
    assert read_index(folder) == before
    check(folder, before, "digits")
    said = " ".join(capsys.readouterr().out.split())
    assert f"state: not written, {folder} stays as it was" in said


def test_of_two_commands_that_write_to_one_folder_the_later_one_keeps_off(
    machines, exported, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "state"
    here = stopped(machines, exported / "later", 0)
    there = stopped(machines, exported / "done", 0)
    first = machines.session(here, After(0), export_state=folder)
    second = machines.session(there, After(0), export_state=folder)
    monkeypatch.setattr(first, "_run", lambda *_: second.run())
    assert first.run() == 1
    assert "another command has written there since" in capsys.readouterr().err
    assert members(folder) == members(exported / "done")
    check(folder, read_index(folder), "digits")
    other = tmp_path / "other"
    assert machines.session(here, After(0), export_state=other).run() == 75
    assert members(other) >= members(exported / "later")


def test_a_slice_in_which_nothing_got_further_says_so(machines, tmp_path, capsys):
    folder = tmp_path / "state"
    for _ in range(2):
        session = machines.session(
            machines.bare(), After(0), import_state=folder, export_state=folder
        )
        assert session.run() == 75
        said = " ".join(capsys.readouterr().out.split())
        assert f"state: nothing got further, and {folder} stays as it was" in said
        assert "models are to be timed" not in said
        assert not (folder / INDEX).exists()


def test_an_error_before_the_start_writes_nothing(machines, tmp_path):
    suite = machines.helpers["suite"](machines.host, strategies=["kdd"])
    session = machines.session(
        machines.bare(), suite=suite, export_state=tmp_path / "state"
    )
    with pytest.raises(UserError, match="kdd"):
        session.run()
    assert list((tmp_path / "state").iterdir()) == []


def test_a_state_that_cannot_be_written_is_an_error_and_the_old_one_stays(
    machines, state, monkeypatch, capsys
):
    folder = state("early")
    before = contents(folder)

    def full(path, *_):
        raise Unwritable(28, "No space left on device", str(path))

    monkeypatch.setattr("kdbench.carrying.packing.write_whole", full)
    out = machines.bare()
    session = machines.session(out, import_state=folder, export_state=folder)
    assert session.run() == 1
    assert "No space left" in capsys.readouterr().err
    assert contents(folder) == before
    check(folder, read_index(folder), "digits")
    assert len(machines.helpers["by_cell"](out / "digits")) == 3
