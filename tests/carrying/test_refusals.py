"""What a command refuses before it starts, with nothing changed."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from carried import contents

from kdbench.api import UserError
from kdbench.carrying.state import INDEX
from kdbench.cli import main


def refused(machines, says, **values):
    out = machines.folder / "results"
    with pytest.raises(UserError, match=says):
        machines.session(out, **values).run()
    assert not out.exists()


def test_a_state_without_one_of_its_parts_changes_nothing(machines, state):
    folder = state("later")
    part = next(folder.glob("part-*"))
    part.unlink()
    refused(machines, f"{part.name} is missing", import_state=folder)


def test_a_state_of_another_suite_is_refused_either_way(machines, state):
    folder = state("later")
    known = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(known | {"suite": "mnist"}))
    before = contents(folder)
    refused(machines, "suite 'mnist', and this is 'digits'", import_state=folder)
    refused(machines, "suite 'mnist', and this is 'digits'", export_state=folder)
    assert contents(folder) == before


def test_a_folder_of_something_else_is_refused_either_way(machines, tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "thesis.txt").touch()
    refused(machines, r"thesis\.txt is there", import_state=folder)
    refused(machines, r"thesis\.txt is there", export_state=folder)
    assert [p.name for p in folder.iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_made_is_refused(machines, tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "state"
    refused(machines, "no folder .*Not a directory", export_state=folder)


@pytest.mark.parametrize("where", ["", "digits", "digits/state"])
def test_a_state_within_the_results_or_above_them_is_refused(machines, where):
    folder = machines.folder / "results" / where
    refused(machines, "neither in nor above it", export_state=folder)


def test_a_state_that_would_be_lost_is_refused(machines, state, exported):
    """One is in the folder, and this command does not go on from it."""
    folder = state("later")
    refused(machines, f"add --import-state {folder}", export_state=folder)
    other = exported / "early"
    refused(machines, "add --import", export_state=folder, import_state=other)


def test_a_disk_without_room_is_refused(machines, state, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"needs \d\.\d MB .* 0\.0 MB are"):
        machines.session(machines.bare(), import_state=state("done")).run()
    assert not list(machines.folder.glob("machine_*"))


def test_teachers_are_not_retrained_and_taken_over_at_once(machines, state):
    values = {"import_state": state("done"), "retrain_teachers": True}
    refused(machines, "--retrain-teachers starts anew", **values)
    values = {"export_state": machines.folder / "new", "retrain_teachers": True}
    refused(machines, "--retrain-teachers starts anew", **values)


def test_the_command_line_passes_both_folders_on(monkeypatch, capsys, state, tmp_path):
    monkeypatch.chdir(tmp_path)
    folder = state("done")
    (folder / "thesis.txt").touch()
    for option in ("--import-state", "--retrain-teachers"), ("--export-state",):
        name, *more = option
        arguments = ["kdbench", "run", "digits", *more, name, str(folder)]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        assert name in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
