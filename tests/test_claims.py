"""Several processes on one results folder: each run once, whoever is killed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace

import pytest

from kdbench.claims import claimed, digests, is_free, locked, put_off
from kdbench.execute import make_jobs
from kdbench.plan import make_plan
from kdbench.plugins import Host
from kdbench.session import Session
from kdbench.stopping import Stopping
from kdbench.store import read_record, write_record

QUICK = {"pairs": ["digits-mlp"], "strategies": ["scratch", "kd"], "seeds": 1}


@pytest.fixture(scope="module")
def trained(run_digits, tmp_path_factory):
    """A folder in which everything of QUICK is finished."""
    out = tmp_path_factory.mktemp("trained")
    failed, _ = run_digits(out, **QUICK)
    assert failed == 0
    return out / "digits"


@pytest.fixture
def jobs(host, helpers, tmp_path):
    """The jobs of QUICK on an empty folder: the teacher's, and its students'."""
    plan = make_plan(helpers["suite"](host, **QUICK), host, {})
    return make_jobs(
        plan, host, {"digits": 1347}, tmp_path / "digits", None, "cpu", 60.0
    )


@pytest.fixture
def session(host, helpers, tmp_path):
    """A session of QUICK in `tmp_path`, whose teachers are nowhere else."""

    def make(stopping=None, **values):
        suite = helpers["suite"](host, **QUICK)
        options = helpers["options"](tmp_path, **values)
        return Session(host, suite, options, stopping)

    return make


def ids(*jobs):
    return [run.id for job in jobs for run in job.group.runs]


def ask(job):
    """The ids that are claimed, and what is told of the others."""
    told = []
    with claimed(job, told.append) as mine:
        return ids(mine) if mine else [], told


def leave(source, folder, run_ids):
    """What another process leaves: the records and weights of these runs."""
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    for run_id in run_ids:
        weights = f"weights/{run_id}.safetensors"
        shutil.copy(source / weights, folder / weights)
        shutil.copy(source / f"{run_id}.json", folder)


# --- locks ----------------------------------------------------------------------------


def test_a_run_is_locked_once_and_free_again(tmp_path):
    with locked(tmp_path, ["a", "b"]) as ours:
        assert ours == {"a", "b"}
        assert not is_free(tmp_path, "a")
        with locked(tmp_path, ["b", "c"]) as theirs:
            assert theirs == {"c"}
    assert is_free(tmp_path, "a")


def test_a_killed_process_holds_nothing(tmp_path):
    code = f"""
import time
from pathlib import Path
from kdbench.claims import locked
with locked(Path({str(tmp_path)!r}), ["a"]):
    print("mine", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as it:
        assert it.stdout.readline() == b"mine\n"
        assert not is_free(tmp_path, "a")
        it.kill()
        it.wait()
        assert is_free(tmp_path, "a")


# --- claims ---------------------------------------------------------------------------


def test_what_another_process_trains_is_left_out(jobs):
    _, students = jobs
    first, second = ids(students)
    with locked(students.folder, [first]):
        mine, told = ask(students)
    assert mine == [second]
    assert told == [("held", students.group.runs[0], {first})]
    with locked(students.folder, [first, second]):
        assert ask(students)[0] == []


def test_what_another_process_has_trained_is_left_out(jobs, trained):
    _, students = jobs
    first, second = ids(students)
    leave(trained, students.folder, [first])
    mine, [(kind, record)] = ask(students)
    assert mine == [second]
    assert (kind, record.id) == ("elsewhere", first)


def test_a_failure_elsewhere_is_left_out_too(jobs, trained):
    _, students = jobs
    [first, second] = ids(students)
    record = read_record(trained / f"{first}.json")
    failed = {"status": "failed", "reason": "not today", "measures": {}}
    write_record(students.folder, record.model_copy(update=failed))
    mine, [(_, told)] = ask(students)
    assert mine == [second]
    assert told.reason == "not today"


@pytest.mark.parametrize("why", ["known", "anew", "torn", "no weights", "skipped"])
def test_a_record_that_does_not_count_does_not_stop_a_run(jobs, trained, why):
    teacher, _ = jobs
    [run_id] = ids(teacher)
    leave(trained, teacher.folder, [run_id])
    path = teacher.folder / f"{run_id}.json"
    assert ask(teacher)[0] == []  # but for what follows, it would be left out
    if why == "known":  # before the command began: its plan has judged it
        teacher = replace(teacher, earlier=digests(teacher.folder))
    elif why == "anew":
        teacher = replace(teacher, anew=True)
    elif why == "torn":
        path.write_text(path.read_text()[:-40])
    elif why == "no weights":
        (teacher.folder / "weights" / f"{run_id}.safetensors").unlink()
    elif why == "skipped":
        skipped = read_record(path).model_copy(update={"status": "skipped"})
        write_record(teacher.folder, skipped)
    assert ask(teacher) == ([run_id], [])


def test_students_wait_for_a_teacher_that_is_trained_elsewhere(jobs):
    teacher, students = jobs
    told = []
    assert not put_off(students, {"another"}, told.append)
    assert put_off(students, set(ids(teacher)), told.append)
    assert told == [("held", run, set(ids(teacher))) for run in students.group.runs]


# --- a session beside another ---------------------------------------------------------


def test_a_session_waits_for_another_and_trains_nothing_again(
    session, jobs, trained, monkeypatch, capsys
):
    """The other one trains the teacher, then the students, and is gone."""
    teacher, students = jobs
    folder = teacher.folder
    with ExitStack() as begun, ExitStack() as other:
        begun.enter_context(locked(folder, ids(teacher)))
        other.enter_context(locked(folder, ids(students)))
        steps = iter([(ids(teacher), begun), (ids(students), other)])

        def other_works(_seconds):
            done, lock = next(steps)
            leave(trained, folder, done)
            lock.close()

        monkeypatch.setattr("kdbench.session.sleep", other_works)
        session().train()
    said = capsys.readouterr().out
    assert said.count("waiting for another kdbench") == 1
    assert f"{folder}: 3 runs" in " ".join(said.split())
    for run_id in ids(*jobs):
        name = f"{run_id}.json"
        assert (folder / name).read_bytes() == (trained / name).read_bytes()


@pytest.mark.parametrize("held", ["teacher", "student"])
def test_a_session_takes_over_what_another_lets_go(
    session, jobs, trained, helpers, monkeypatch, held
):
    teacher, students = jobs
    with ExitStack() as other:
        whose = ids(teacher) if held == "teacher" else ids(students)[:1]
        other.enter_context(locked(teacher.folder, whose))
        monkeypatch.setattr("kdbench.session.sleep", lambda _: other.close())
        session().train()
    records = helpers["by_cell"](teacher.folder)
    same_bits(helpers, records, helpers["by_cell"](trained))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_waiting(session, jobs, monkeypatch, capsys, number):
    def signalled(_seconds):
        signal.raise_signal(number)

    monkeypatch.setattr("kdbench.session.sleep", signalled)
    with locked(jobs[0].folder, ids(*jobs)):
        assert session().run() == 130
    assert "the same command resumes" in capsys.readouterr().out


def test_the_time_limit_ends_the_waiting(session, jobs, capsys):
    with locked(jobs[0].folder, ids(*jobs)):
        assert session(Stopping(0.01)).run() == 75
    assert "3 runs are open" in capsys.readouterr().out


# --- real processes -------------------------------------------------------------------


PLUGIN = """
import os, time
from dataclasses import dataclass
from pathlib import Path
import torch.nn.functional as F
from kdbench import Strategy, hookimpl

@dataclass(frozen=True, kw_only=True)
class Slow(Strategy):
    '''Scratch, at leisure.'''
    name = "slow"

    def loss(self, batch):
        time.sleep(0.02)
        return {"ce": F.cross_entropy(batch.student.logits, batch.targets)}

@hookimpl
def kdbench_strategies():
    return [Slow]

@hookimpl
def kdbench_run_finished(record):
    with Path(__file__).with_name("finished").open("a") as file:
        file.write(f"{os.getpid()} {record.id}\\n")
"""

COMMAND = [
    "run",
    "--no-speed",
    "--no-report",
    "-p",
    "digits-mlp",
    "-s",
    "slow,kd",
    "--epochs",
    "8",
]
COMMAND += ["--plugin", "slow.py", "--checkpoint-every", "0.2"]


@pytest.fixture
def begin(tmp_path):
    """Start the command in a process of its own; it ends with the test."""
    (tmp_path / "slow.py").write_text(PLUGIN)
    with ExitStack() as stack:

        def begin(*more):
            process = subprocess.Popen(
                [sys.executable, "-m", "kdbench.cli", *COMMAND, *more],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield begin


@pytest.fixture
def alone(run_digits, tmp_path):
    """The records by cell that the command leaves undisturbed."""

    def alone(seeds):
        changes = {"pairs": ["digits-mlp"], "strategies": ["slow", "kd"]}
        changes["validation"] = 0.1  # as the suite has it
        host = Host(files=[tmp_path / "slow.py"])
        _, records = run_digits(
            tmp_path / "alone", host, epochs=8, seeds=seeds, **changes
        )
        return records

    return alone


@pytest.mark.slow
def test_two_processes_share_the_work(begin, alone, helpers, tmp_path):
    """Both report all, each run was trained once, and bits are as by one process."""
    folder = tmp_path / "results" / "digits"
    first = begin("--seeds", "2", "--executor", "here")
    wait_for(lambda: is_training_students(folder))
    first.send_signal(signal.SIGSTOP)  # however long the second takes to start
    second = begin("--seeds", "2", "--executor", "here")
    said = until_it_waits(second)
    first.send_signal(signal.SIGCONT)
    said += second.communicate(timeout=300)[0]
    for text in (said, first.communicate(timeout=300)[0]):
        assert "7 runs finished, 0 failed" in text
        assert "Traceback" not in text
    assert (first.returncode, second.returncode) == (0, 0)
    assert trained_by(tmp_path) == {first.pid: 4, second.pid: 3}
    same_bits(helpers, helpers["by_cell"](folder), alone(seeds=2))


@pytest.mark.slow
def test_two_processes_with_workers_at_once(begin, alone, helpers, tmp_path):
    both = [begin("--seeds", "2") for _ in range(2)]
    for process in both:
        text = process.communicate(timeout=300)[0]
        assert process.returncode == 0, text
        assert "7 runs finished, 0 failed" in text
    assert sum(trained_by(tmp_path).values()) == 7
    same_bits(helpers, helpers["by_cell"](tmp_path / "results/digits"), alone(seeds=2))


@pytest.mark.slow
def test_a_killed_partners_runs_are_taken_over(begin, alone, helpers, tmp_path):
    folder = tmp_path / "results" / "digits"
    first = begin("--seeds", "1", "--executor", "here")
    wait_for(lambda: is_training_students(folder))
    first.send_signal(signal.SIGSTOP)
    second = begin("--seeds", "1", "--executor", "here")
    until_it_waits(second)
    first.kill()
    text = second.communicate(timeout=300)[0]
    assert second.returncode == 0, text
    assert "4 runs finished, 0 failed" in text
    assert trained_by(tmp_path) == {first.pid: 1, second.pid: 3}
    same_bits(helpers, helpers["by_cell"](folder), alone(seeds=1))


def is_training_students(folder):
    """The teacher has its record, and a run without one has a checkpoint."""
    done = {path.stem for path in folder.glob("*.json")}
    begun = {path.name.partition(".")[0] for path in folder.glob("checkpoints/*.ckpt")}
    return bool(done and begun - done)


def until_it_waits(process):
    said = ""
    for line in process.stdout:
        said += line
        if "waiting for another kdbench" in line:
            return said
    pytest.fail(f"it did not wait: {said}")


def trained_by(folder):
    """How many runs each process has finished; none was finished twice."""
    lines = (folder / "finished").read_text().splitlines()
    assert len({line.split()[1] for line in lines}) == len(lines)
    return Counter(int(line.split()[0]) for line in lines)


def same_bits(helpers, records, known):
    assert records.keys() == known.keys()
    for cell, record in records.items():
        assert helpers["bits"](record) == helpers["bits"](known[cell])


def wait_for(happened, seconds=120):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
