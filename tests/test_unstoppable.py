"""kill -9 at any moment, the same command again: the same records, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from kdbench.session import Session
from kdbench.stopping import Stopping

STRATEGIES = ["kd", "ab[ab_epochs=2]", "crd[negatives=64]", "dml", "split_transfer"]
"""A plain one, one with a phase before the first epoch, one with adapters and a memory,
one with two students, and one that drives its own loop."""

CHANGES = {"pairs": ["digits-conv"], "strategies": STRATEGIES, "epochs": 4}
CHANGES["validation"] = 0.1  # as the suite has it
RUN = [
    "run",
    "--no-speed",
    "--no-report",
    "--seeds",
    "1",
    "--epochs",
    "4",
    "-p",
    "digits-conv",
]
RUN += ["-s", ",".join(STRATEGIES), "--checkpoint-every", "0"]


@pytest.fixture(scope="module")
def undisturbed(run_digits, tmp_path_factory):
    _, records = run_digits(tmp_path_factory.mktemp("undisturbed"), **CHANGES)
    return records


def check(undisturbed, helpers, folder):
    """All is there, bit for bit, and nothing else is left."""
    records = helpers["by_cell"](folder)
    assert records.keys() == undisturbed.keys()
    for cell, record in records.items():
        assert helpers["bits"](record) == helpers["bits"](undisturbed[cell]), cell
    assert list(folder.glob("checkpoints/*")) == []
    assert list(folder.rglob("*.tmp")) == []


# --- kills ----------------------------------------------------------------------------


class Spawned:
    """The command as a user starts it, with its worker processes."""

    def __init__(self, out):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kdbench.cli", *RUN, "--out", str(out)],
            stdout=subprocess.DEVNULL,
        )
        self.pid = self._process.pid

    def is_running(self):
        return self._process.poll() is None

    def wait(self):
        return self._process.wait(timeout=600)


FORKS = """
import json, os, sys
import torch
torch.set_num_threads(1)
import kdbench.report.html, kdbench.report.plots, kdbench.session
from kdbench.cli import main
from kdbench.plugins import Host
Host()
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.argv = ["kdbench", *json.loads(line), "--executor", "here"]
        try:
            main()
        except SystemExit as end:
            os._exit(end.code or 0)
        finally:
            os._exit(99)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Forked:
    """The command in a fork of a process that has imported all: a quick start."""

    def __init__(self, parent, out):
        self._parent = parent
        parent.stdin.write(json.dumps([*RUN, "--out", str(out)]) + "\n")
        parent.stdin.flush()
        self.pid = int(parent.stdout.readline())

    def is_running(self):
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def wait(self):
        return int(self._parent.stdout.readline())


@pytest.fixture(scope="module")
def parent():
    with subprocess.Popen(
        [sys.executable, "-c", FORKS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.stdin.close()


def trace_of(folder):
    """What training has left so far; it changes with every step."""
    files = [*folder.glob("checkpoints/*.ckpt"), *folder.glob("*.json")]
    found = set()
    for path in files:
        try:
            found.add((path.name, path.stat().st_mtime_ns))
        except FileNotFoundError:  # replaced meanwhile
            return None
    return found


def kill_at_random(start, folder, moments, *, training):
    """Start the command and kill it: None where it ended before, or what was trained.

    `training` waits until it trains; else any moment of its first seconds will do.
    """
    before = trace_of(folder)
    command = start(folder.parent)
    if training:
        while command.is_running() and trace_of(folder) == before:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5))
    else:
        time.sleep(moments.uniform(0, 3))
    if not command.is_running():
        assert command.wait() == 0
        return None
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    return trace_of(folder) != before


def killed_often(start, out, kills, check):
    """Kill until it has happened so often, in new folders where one has ended.

    How many kills came after training had begun.
    """
    moments = random.Random(kills)  # noqa: S311 - no secret
    landed = []
    folders = 0
    while len(landed) < kills:
        folder = out / str(folders) / "digits"
        folders += 1
        trained = False
        while trained is not None and len(landed) < kills:
            training = len(landed) % 5 != 4
            trained = kill_at_random(start, folder, moments, training=training)
            if trained is not None:
                landed.append(trained)
        if trained is not None:
            assert start(folder.parent).wait() == 0
        check(folder)
    return sum(landed)


@pytest.mark.slow
def test_two_kills(undisturbed, helpers, tmp_path):
    trained = killed_often(
        Spawned, tmp_path, 2, lambda folder: check(undisturbed, helpers, folder)
    )
    assert trained >= 1


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_fifty_kills(undisturbed, helpers, tmp_path, parent):
    """Most in forks, which start quickly, and some of the whole command."""

    def whole(folder):
        check(undisturbed, helpers, folder)

    def forked(out):
        return Forked(parent, out)

    trained = killed_often(forked, tmp_path / "forked", 44, whole)
    trained += killed_often(Spawned, tmp_path / "spawned", 6, whole)
    assert trained >= 35


def test_a_killed_parent_leaves_no_workers(tmp_path):
    command = Spawned(tmp_path)
    children = wait_for(lambda: children_of(command.pid))
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    wait_for(lambda: not any(is_there(pid) for pid in children))


def children_of(pid):
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return [int(word) for word in listed.stdout.split()]


def is_there(pid):
    """Whether the process lives; one that nobody waits for may stay as a name."""
    listed = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return bool(listed.stdout.strip()) and not listed.stdout.startswith("Z")


def wait_for(happened, seconds=120):
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return found


# --- damaged checkpoints --------------------------------------------------------------


class After(Stopping):
    """A time limit that is reached when it has been asked so many times."""

    def __init__(self, times):
        super().__init__()
        self.left = times

    def __call__(self):
        self.left -= 1
        return self.at_limit()

    def at_limit(self):
        return self.left < 0


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [flip, cut])
@pytest.mark.parametrize("both", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_damaged_checkpoint_costs_time_and_no_bit(
    host, helpers, run_digits, tmp_path, capsys, damage, both
):
    changes = {"pairs": ["digits-mlp"], "strategies": ["scratch", "kd"]}
    _, known = run_digits(tmp_path / "whole", **changes)
    suite = helpers["suite"](host, **changes)
    options = helpers["options"](tmp_path)
    for times in (30, 5):  # of the students' 42 steps; their teacher is in the cache
        Session(host, suite, options, After(times)).train()
    folder = tmp_path / "digits"
    newest = [p for p in folder.glob("checkpoints/*") if ".previous" not in p.name]
    assert len(newest) == 2
    for path in newest:
        damage(path)
        if both:
            damage(path.with_name(path.stem + ".previous.ckpt"))
    capsys.readouterr()
    Session(host, suite, options).train()
    said = " ".join(capsys.readouterr().out.split())
    goes_on = "it starts again" if both else "it goes on from the one before it"
    assert said.count(goes_on) == 2
    records = helpers["by_cell"](folder)
    assert records.keys() == known.keys()
    for cell, record in records.items():
        assert helpers["bits"](record) == helpers["bits"](known[cell])
