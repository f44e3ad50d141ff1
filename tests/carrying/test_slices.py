"""Runs that go on elsewhere: carried to bare machines, and the same bit for bit."""

from __future__ import annotations

import shutil

import pytest
from carried import LIMIT, QUICK, After, contents

from kdbench.carrying.state import INDEX
from kdbench.teachers.store import kept


def in_slices(machines, suite, times, at_least):
    """The last machine's folder, every slice being on a machine of its own."""
    state = machines.folder / "state"
    for _ in range(30):
        out = machines.bare()
        session = machines.session(
            out, After(times), suite, import_state=state, export_state=state
        )
        code = session.run()
        large = [p for p in state.iterdir() if p.stat().st_size > LIMIT]
        assert [p.name for p in large if p.name != INDEX] == []
        if code == 0:
            break
        assert code == 75
    assert machines.count >= at_least
    return out


def assert_same(machines, out, known):
    bits = machines.helpers["bits"]
    records = machines.helpers["by_cell"](out / "digits")
    assert records.keys() == known.keys()
    for cell, record in records.items():
        assert bits(record) == bits(known[cell])
        assert record.weights_sha256 == known[cell].weights_sha256 is not None
        assert record.cost["student_epochs"] == known[cell].cost["student_epochs"]


def test_cut_on_bare_machines_gives_the_same_bits(
    machines, run_digits, tmp_path, capsys
):
    _, known = run_digits(tmp_path / "whole", **QUICK)
    suite = machines.helpers["suite"](machines.host, **QUICK)
    out = in_slices(machines, suite, 36, at_least=3)
    assert_same(machines, out, known)
    [teacher] = [r for r in known.values() if r.run.is_teacher]
    assert kept(teacher.id)  # the cache of the last machine has it, too
    assert len(list((tmp_path / "state").glob("part-*"))) > 1
    said = " ".join(capsys.readouterr().out.split())
    assert f"state: none in {tmp_path / 'state'} yet, starting afresh" in said
    assert "state: 0 finished runs and 1 checkpoint taken over from" in said
    assert "state: 1 finished run (1 teacher) and 2 checkpoints taken over" in said


@pytest.mark.slow
def test_phases_and_loops_of_their_own_are_cut_on_bare_machines_too(
    machines, run_digits, tmp_path
):
    """With assistants, adapters, and a student that another one is made of."""
    changes = {
        "pairs": ["digits-conv"],
        "strategies": [
            "kd",
            "kd/magnitude_50",
            "ab[ab_epochs=1]",
            "takd",
            "split_transfer",
        ],
    }
    _, known = run_digits(tmp_path / "whole", **changes)
    suite = machines.helpers["suite"](machines.host, **changes)
    out = in_slices(machines, suite, 50, at_least=4)
    assert_same(machines, out, known)


def test_a_state_that_is_done_needs_no_training(machines, state, capsys):
    out, folder = machines.bare(), state("done")
    session = machines.session(out, After(0), import_state=folder)
    assert session.train().todo  # nothing is taken over but by run()
    shutil.rmtree(out)
    before = contents(folder)
    session = machines.session(
        out, After(10_000), import_state=folder, export_state=folder
    )
    assert session.run() == 0
    assert "0 runs to do in 0 groups, 3 done" in capsys.readouterr().out
    assert contents(folder) == before
    assert not (out / "digits" / ".arriving").exists()
