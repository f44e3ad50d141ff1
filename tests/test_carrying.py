"""Runs that go on elsewhere: carried to bare machines, and the same bit for bit."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from dataclasses import dataclass

import pytest
import torch
from filelock import FileLock, Timeout

from kdbench.api import UserError
from kdbench.atomic import Unwritable
from kdbench.carrying.state import INDEX, check, read_index
from kdbench.claims import locked
from kdbench.cli import main
from kdbench.engine import Stopped, checkpoint
from kdbench.engine.faults import DeviceLost
from kdbench.records import Headline, SpeedRecord
from kdbench.session import Session
from kdbench.stopping import Stopping
from kdbench.store import file_name, read_record, write_record
from kdbench.teachers.imported import path_of
from kdbench.teachers.store import kept
from kdbench.weights import Imported, state_hash
from kdbench.weights import write as write_weights

QUICK = {"pairs": ["digits-mlp"], "strategies": ["scratch", "kd"]}
LIMIT = 100_000


class After(Stopping):
    """A time limit, or Ctrl-C, once it has been asked so many times."""

    def __init__(self, times, *, interrupts=False):
        super().__init__()
        self.left = times
        self._interrupts = interrupts

    def __call__(self):
        self.left -= 1
        if self._interrupts and self.left < 0:
            self.interrupted = True
        return super().__call__()

    def at_limit(self):
        return self.left < 0 and not self._interrupts


@dataclass
class Machines:
    """A session on a fresh machine each time: an empty folder, an empty cache."""

    host: object
    helpers: dict
    folder: object
    monkeypatch: object
    count: int = 0

    def bare(self):
        self.count += 1
        out = self.folder / f"machine_{self.count}"
        self.monkeypatch.setenv("KDBENCH_CACHE", str(out / "cache"))
        return out

    def session(self, out, stopping=None, suite=None, **values):
        suite = suite or self.helpers["suite"](self.host, **QUICK)
        options = self.helpers["options"](out, **{"speed": False, **values})
        return Session(self.host, suite, options, stopping)


@pytest.fixture
def machines(host, helpers, tmp_path, monkeypatch):
    monkeypatch.setattr("kdbench.carrying.LIMIT", LIMIT)
    monkeypatch.setattr("kdbench.session.print_tables", lambda *_: None)  # slow
    return Machines(host, helpers, tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def exported(host, helpers, tmp_path_factory):
    """States by their stage: the teacher under way, students under way, all done."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdbench.carrying.LIMIT", LIMIT)
        machines = Machines(host, helpers, folder, patch)
        out = machines.bare()
        for stage, times in (("early", 10), ("later", 50), ("done", 10_000)):
            state = folder / stage
            session = machines.session(out, After(times), export_state=state)
            assert session.run() == (0 if stage == "done" else 75)
    return folder


@pytest.fixture
def state(exported, tmp_path):
    """A copy of one of these states."""

    def copy(stage):
        shutil.copytree(exported / stage, tmp_path / "state", dirs_exist_ok=True)
        return tmp_path / "state"

    return copy


def members(folder):
    return set(read_index(folder).sizes)


def contents(folder):
    found = {p.relative_to(folder): p for p in folder.rglob("*")}
    return {k: p.read_bytes() for k, p in found.items() if p.is_file()}


# --- the loop -------------------------------------------------------------------------


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


def test_what_a_state_holds_and_what_not(exported):
    """Records, weights of what has finished, one checkpoint of what has not."""
    assert [p.partition("/")[0] for p in members(exported / "early")] == ["checkpoints"]
    later, done = members(exported / "later"), members(exported / "done")
    folders = sorted(p.rpartition("/")[0] for p in later if "strategy-" not in p)
    assert folders == ["", "checkpoints", "checkpoints", "weights"]
    runs = [p for p in done if "-" not in p]
    assert sorted(p.rpartition("/")[0] for p in runs) == 3 * [""] + 3 * ["weights"]
    assert any(p.startswith("strategy-") for p in done)


# --- the ends of a command ------------------------------------------------------------


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


def raising(error):
    raise error


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


def timed(model):
    return SpeedRecord(
        model=model,
        dataset="digits",
        measures={},
        environment={"device": "cpu"},
        finished_at="2026-01-01",
    )


def test_what_was_timed_before_the_limit_is_carried(machines, state, monkeypatch):
    """Speeds and cards go into a state, and out of it where they are not yet."""
    folder = state("done")
    out = machines.bare()

    def measure_speed(*_):
        write_record(out / "digits", timed("mlp_5"))
        raise Stopped

    monkeypatch.setattr("kdbench.session.measure_speed", measure_speed)
    session = machines.session(
        out, speed=True, import_state=folder, export_state=folder
    )
    assert session.run() == 75
    name = file_name(timed("mlp_5"))
    assert name in members(folder)
    there = machines.bare()
    monkeypatch.setattr("kdbench.session.with_cards", lambda _, results, *__: results)
    machines.session(there, After(0), import_state=folder).run()
    assert read_record(there / "digits" / name) == timed("mlp_5")
    cards = {p.name for p in (there / "digits").glob("strategy-*")}
    assert cards == {p for p in members(folder) if p.startswith("strategy-")}
    assert cards
    here = timed("mlp_5").model_copy(update={"finished_at": "2026-02-02"})
    write_record(there / "digits", here)
    machines.session(there, After(0), import_state=folder).run()
    assert read_record(there / "digits" / name) == here


def test_odd_files_among_the_results_are_left_out(machines, exported, tmp_path):
    out = stopped(machines, exported / "done", 0) / "digits"
    one, two = ids(out)[1:]
    shutil.copy(out / f"{one}.json", out / f"{one} (copy).json")
    shutil.copy(out / f"{one}.json", out / "copy.json")
    (out / "weights" / f"{two}.safetensors").write_bytes(b"")
    (out / "checkpoints").mkdir(exist_ok=True)
    (out / "checkpoints" / "what is this.ckpt").touch()
    folder = tmp_path / "state"
    assert machines.session(out.parent, export_state=folder).run() == 0
    expected = members(exported / "done") - {f"weights/{two}.safetensors"}
    assert members(folder) == expected


def test_skipped_runs_are_not_carried(machines, exported, tmp_path):
    """Every command makes their records anew: the state would change each time."""
    out = stopped(machines, exported / "done", 0)
    one = ids(out / "digits")[1]
    record = read_record(out / "digits" / f"{one}.json")
    write_record(out / "digits", record.model_copy(update={"status": "skipped"}))
    session = machines.session(out, After(0), export_state=tmp_path / "state")
    assert session.run() == 75
    assert f"{one}.json" not in members(tmp_path / "state")


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


# --- what is there already ------------------------------------------------------------


def ids(folder):
    """Ids of the runs in a state: the teacher's, then the students'."""
    records = [read_record(p) for p in folder.glob("????????????.json")]
    return [r.id for r in sorted(records, key=lambda r: not r.run.is_teacher)]


def stopped(machines, folder, times, **values):
    """The suite's folder on a bare machine that went on from a state."""
    out = machines.bare()
    machines.session(out, After(times), import_state=folder, **values).run()
    return out


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


# --- what is refused, with nothing changed --------------------------------------------


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


# --- more than runs -------------------------------------------------------------------


def test_a_checkpoint_from_elsewhere_that_teaches_is_carried(machines, host):
    out = machines.bare()
    dataset = host.dataset("digits")
    network = dataset.build(host.model("mlp_bn_8_8")).eval()
    weights = network.state_dict()
    card = Imported(
        name="mine",
        model="mlp_bn_8_8",
        dataset="digits",
        input_shape=dataset.input_shape,
        outputs=10,
        headline=Headline(
            name="top1", title="Top-1", unit="%", gain_unit="points", better="higher"
        ),
        value=10.0,
        test_items=450,
        weights_sha256=state_hash(weights),
        file="theirs.pth",
        file_sha256=64 * "0",
        environment={"device": "gpu"},
        imported_at="2026-01-01",
    )
    write_weights(path_of("mine"), weights, card)
    known = path_of("mine").read_bytes()
    write_weights(path_of("others"), weights, replace_name(card, "others"))
    sides = {"teacher": "imported:mine", "student": "mlp_5"}
    suite = machines.helpers["suite"](
        host, define_pairs={"own": sides}, pairs=["own"], strategies=["kd"]
    )
    state = machines.folder / "state"
    assert machines.session(out, After(30), suite, export_state=state).run() == 75
    there = machines.bare()
    assert not path_of("mine").exists()
    session = machines.session(there, None, suite, import_state=state)
    assert session.run() == 0
    assert path_of("mine").read_bytes() == known
    assert not path_of("others").exists()
    with torch.no_grad():
        weights["classifier.bias"] += 1
    write_weights(
        path_of("mine"),
        weights,
        card.model_copy(update={"weights_sha256": state_hash(weights)}),
    )
    changed = path_of("mine").read_bytes()
    machines.session(there, After(0), suite, import_state=state).run()
    assert path_of("mine").read_bytes() == changed


def replace_name(card, name):
    return card.model_copy(update={"name": name})


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
