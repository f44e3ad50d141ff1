"""A state that is taken over where there are results already."""

from __future__ import annotations

import shutil

import pytest
from carried import After, contents, ids, members, raising, stopped
from filelock import FileLock, Timeout

from kdbench.api import UserError
from kdbench.claims import locked
from kdbench.engine import checkpoint
from kdbench.store import read_record, write_record


def test_what_is_further_here_stays(machines, state, exported):
    done = stopped(machines, exported / "done", 0)
    before = contents(done / "digits")
    machines.session(done, After(0), import_state=state("later")).run()
    assert contents(done / "digits") == before


def positions(folder):
    found = {}
    for path in (folder / "checkpoints").glob("*.ckpt"):
        run_id = path.name.partition(".")[0]
        found[run_id] = checkpoint.reached(checkpoint.load(path.parent, run_id))
    return found


def test_of_two_checkpoints_the_further_one_counts(machines, state):
    folder = state("early")
    here = stopped(machines, folder, 10)  # ten steps more than the state
    [[run_id, further]] = positions(here / "digits").items()
    machines.session(here, After(0), import_state=folder).run()
    assert positions(here / "digits") == {run_id: further}
    behind = stopped(machines, folder, 0)
    assert positions(behind / "digits")[run_id] < further
    shutil.rmtree(folder)
    machines.session(here, After(0), import_state=None, export_state=folder).run()
    machines.session(behind, After(0), import_state=folder).run()
    assert positions(behind / "digits") == {run_id: further}


def test_a_teacher_that_lost_its_weights_gets_them_back(machines, state, exported):
    done = stopped(machines, exported / "done", 0)
    teacher, *_ = ids(done / "digits")
    path = done / "digits" / "weights" / f"{teacher}.safetensors"
    known = path.read_bytes()
    path.unlink()
    machines.bare()
    machines.session(done, After(0), import_state=state("done")).run()
    assert path.read_bytes() == known


def test_a_teacher_with_damaged_weights_gets_good_ones(machines, state, exported):
    done = stopped(machines, exported / "done", 0)
    teacher, *_ = ids(done / "digits")
    path = done / "digits" / "weights" / f"{teacher}.safetensors"
    known = path.read_bytes()
    path.write_bytes(known[:-8] + bytes(8))
    machines.bare()
    machines.session(done, After(0), import_state=state("done")).run()
    assert path.read_bytes() == known


def test_a_run_that_finished_elsewhere_leaves_no_checkpoint_here(
    machines, exported, state
):
    out = stopped(machines, exported / "later", 0)
    assert len(positions(out / "digits")) == 2
    machines.session(out, After(0), import_state=state("done")).run()
    assert list((out / "digits" / "checkpoints").iterdir()) == []


def test_what_arrives_is_moved_and_not_copied(machines, state, monkeypatch):
    """Else it needs its room twice."""
    from kdbench.carrying import taking

    real, laid = taking.unpack, set()

    def unpack(folder, index, to):
        real(folder, index, to)
        laid.update(p.stat().st_ino for p in to.rglob("*") if p.is_file())

    monkeypatch.setattr(taking, "unpack", unpack)
    folder, out = state("later"), machines.bare()
    machines.session(out, import_state=folder).carrier.start()
    there = [p.stat().st_ino for p in (out / "digits").rglob("*") if p.is_file()]
    assert len(laid & set(there)) == len(members(folder))


def test_a_disk_that_fills_up_on_the_way_is_an_error_of_the_user(
    machines, state, monkeypatch
):
    why = OSError(28, "No space left on device")
    monkeypatch.setattr("kdbench.carrying.taking.unpack", lambda *_: raising(why))
    out = machines.bare()
    with pytest.raises(UserError, match=r"cannot be laid out in .*No space left"):
        machines.session(out, import_state=state("done")).run()
    assert [p for p in contents(out) if ".locks" not in p.parts] == []


def test_two_commands_do_not_take_over_at_once(machines, state, monkeypatch):
    from kdbench.carrying import taking

    out, real, seen = machines.bare(), taking.unpack, []

    def unpack(*arguments):
        with pytest.raises(Timeout):
            FileLock(out / "digits" / ".locks" / "state.lock").acquire(timeout=0)
        seen.append(1)
        real(*arguments)

    monkeypatch.setattr(taking, "unpack", unpack)
    machines.session(out, import_state=state("done")).carrier.start()
    assert seen


def test_two_commands_do_not_write_a_state_at_once(
    machines, exported, tmp_path, monkeypatch
):
    import kdbench.carrying

    real, seen = kdbench.carrying.write, []

    def write(to, *arguments):
        with pytest.raises(Timeout):
            FileLock(to / ".lock").acquire(timeout=0)
        seen.append(1)
        return real(to, *arguments)

    monkeypatch.setattr(kdbench.carrying, "write", write)
    out = stopped(machines, exported / "done", 0)
    machines.session(out, After(0), export_state=tmp_path / "state").run()
    assert seen


def test_more_measures_of_the_same_student_are_taken_over(machines, state, exported):
    done = stopped(machines, exported / "done", 0)
    first, second = ids(done / "digits")[1:]
    records = [read_record(done / "digits" / f"{i}.json") for i in (first, second)]
    for record, weights in zip(records, (None, 64 * "0"), strict=True):
        fewer = {"measures": {"top1": record.measures["top1"]}}
        other = {"weights_sha256": weights or record.weights_sha256}
        write_record(done / "digits", record.model_copy(update=fewer | other))
    machines.session(done, After(0), import_state=state("done")).run()
    assert read_record(done / "digits" / f"{first}.json") == records[0]
    left = read_record(done / "digits" / f"{second}.json")
    assert left.measures.keys() == {"top1"}


def test_students_of_two_teachers_are_not_mixed(machines, state, exported):
    done = stopped(machines, exported / "done", 0)
    teacher, *_ = ids(done / "digits")
    path = done / "digits" / f"{teacher}.json"
    changed = {"weights_sha256": 64 * "0"}
    write_record(done / "digits", read_record(path).model_copy(update=changed))
    before = contents(done / "digits")
    session = machines.session(done, import_state=state("later"))
    with pytest.raises(UserError, match=r"teacher .* has other weights .* --out"):
        session.run()
    assert contents(done / "digits") == before


def test_what_another_process_trains_is_left_to_it(machines, state, capsys):
    folder = state("later")
    out = machines.bare()
    run_id = next(iter(sorted(p for p in members(folder) if "ckpt" in p)))[12:24]
    (out / "digits").mkdir(parents=True)
    with locked(out / "digits", [run_id]):
        machines.session(out, After(0), import_state=folder).run()
    assert not (out / "digits" / "checkpoints" / f"{run_id}.ckpt").exists()
    assert len(positions(out / "digits")) == 1
    assert "1 run left to another kdbench" in capsys.readouterr().out
