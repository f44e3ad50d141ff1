"""Memory that runs out, a device that is lost, a full disk: the same records after all.

The plugin's strategy misbehaves as the environment says, so that one run's identity is
the same in every test.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdbench.engine import checkpoint
from kdbench.plugins import Host
from kdbench.session import Session

PLUGIN = """
import os
from collections import Counter
from dataclasses import dataclass
import torch, torch.nn.functional as F
from kdbench import *

@dataclass(frozen=True, kw_only=True)
class Hungry(Strategy):
    '''Cross-entropy, with a mishap where the environment asks for one.'''
    name = "hungry"
    n: int = 0  # a number; which of several it is
    def loss(self, batch):
        self.calls[self.n] += 1
        self.mishap(batch, os.environ.get("MISHAP", ""))
        ce = F.cross_entropy(batch.student.logits, batch.targets)
        return {"ce": ce, "more": 0.01 * self.n * batch.student.logits.pow(2).mean()}
    def mishap(self, batch, what):
        if what == "company" and batch.epoch >= 1:
            before, self.last[:] = self.last[:], [self.n, batch.epoch]
            if before[0] != self.n and before[1] == batch.epoch:
                raise torch.OutOfMemoryError("CUDA out of memory")
        if what == "once" and self.n == 2 and self.calls[2] == 13:
            raise MemoryError
        if what == "always" and self.n == 2 and batch.epoch >= 1:
            torch.empty(2**60, dtype=torch.uint8)
        if what == "lost" and self.n == 2 and batch.epoch >= 1:
            raise RuntimeError("CUDA error: device-side assert triggered")

Hungry.calls, Hungry.last = Counter(), [0, 0]

@dataclass(frozen=True, kw_only=True)
class Alone(Strategy):
    '''Drives its own loop.'''
    name = "alone"
    def train(self, context):
        student = context.students[0]
        optimiser = context.optimiser(student.parameters())
        for epoch in context.epochs():
            if epoch == 1 and os.environ.get("ALONE") == "memory":
                raise MemoryError
            if epoch == 1 and os.environ.get("ALONE") == "lost":
                raise RuntimeError("no CUDA-capable device is detected")
            for batch in context.batches():
                loss = F.cross_entropy(student(batch.inputs), batch.targets)
                optimiser.zero_grad(); loss.backward(); optimiser.step()
                context.log("ce", loss)
        return student

@hookimpl
def kdbench_strategies(): return [Hungry, Alone]
"""

HUNGRY = [f"hungry[n={n}]" for n in (1, 2, 3)]
MEMBERS = [f"digits-mlp/{label}/0" for label in HUNGRY]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "hungry.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture(scope="module")
def hosts(plugin):
    return Host(files=[plugin])


@pytest.fixture
def hungry(hosts, steps):
    """The strategy, with its counts at zero."""
    strategy = hosts.strategy("hungry")
    strategy.calls.clear()
    strategy.last[:] = [0, 0]
    return strategy


@pytest.fixture(scope="module")
def run(hosts, helpers):
    def run(out, strategies=HUNGRY, **options):
        """How many runs failed, and the records by cell."""
        suite = helpers["suite"](
            hosts, pairs=["digits-mlp"], strategies=list(strategies)
        )
        session = Session(hosts, suite, helpers["options"](out, **options))
        session.train()
        return len(session.failed), helpers["by_cell"](out / "digits")

    return run


@pytest.fixture
def broken(hosts, helpers, capsys):
    def broken(out, strategies=HUNGRY, **options):
        """What a command says that ends with exit code 1, and the records by cell."""
        suite = helpers["suite"](
            hosts, pairs=["digits-mlp"], strategies=list(strategies)
        )
        session = Session(hosts, suite, helpers["options"](out, **options))
        assert session.run() == 1
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return " ".join((said.out + said.err).split()), helpers["by_cell"](
            out / "digits"
        )

    return broken


@pytest.fixture(scope="module")
def undisturbed(run, tmp_path_factory):
    failed, records = run(tmp_path_factory.mktemp("undisturbed"), [*HUNGRY, "alone"])
    assert failed == 0
    return records


@pytest.fixture(scope="module")
def steps(hosts, undisturbed):
    """The steps of each run."""
    return hosts.strategy("hungry").calls[1]


@pytest.fixture
def same(undisturbed, helpers):
    def same(records, cells=None):
        for cell in cells or records:
            assert helpers["bits"](records[cell]) == helpers["bits"](undisturbed[cell])

    return same


def open_checkpoints(out):
    return {p.name for p in (out / "digits" / "checkpoints").glob("*")}


@pytest.mark.slow
def test_a_group_out_of_memory_goes_on_in_halves(
    run, same, hungry, steps, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("MISHAP", "company")
    failed, records = run(tmp_path)
    assert failed == 0
    same(records)
    said = capsys.readouterr().out
    assert said.count("out of memory (CUDA out of memory, in hungry[n=") == 3
    assert "the group goes on in two halves" in said
    assert open_checkpoints(tmp_path) == set()
    # whoever had memory goes on where it stood; who had none, from its last checkpoint
    assert hungry.calls[1] == steps
    assert hungry.calls[2] > steps
    assert steps < hungry.calls[3] < steps + 5


def test_half_a_step_is_not_kept(run, same, hungry, steps, tmp_path, monkeypatch):
    monkeypatch.setenv("MISHAP", "once")
    failed, records = run(tmp_path, checkpoint_every_s=0)
    assert failed == 0
    same(records)
    assert hungry.calls == {1: steps, 2: steps + 1, 3: steps}


@pytest.mark.slow
def test_a_run_that_does_not_fit_alone_fails_alone(
    run, same, hungry, tmp_path, monkeypatch
):
    monkeypatch.setenv("MISHAP", "always")
    failed, records = run(tmp_path)
    assert failed == 1
    assert records[MEMBERS[1]].status == "failed"
    reason = records[MEMBERS[1]].reason
    assert reason.startswith("needs more memory than there is, even alone (")
    assert "a smaller batch_size" in reason
    same(records, set(records) - {MEMBERS[1]})
    monkeypatch.delenv("MISHAP")
    failed, records = run(tmp_path)
    assert failed == 0
    same(records)


def test_an_own_loop_without_memory_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setenv("ALONE", "memory")
    failed, records = run(tmp_path, ["alone"])
    assert failed == 1
    assert "needs more memory than there is" in records["digits-mlp/alone/0"].reason


@pytest.mark.parametrize(
    "executor", ["here", pytest.param("local", marks=pytest.mark.slow)]
)
def test_a_lost_device_ends_the_command_and_not_the_runs(
    run, broken, same, hungry, steps, tmp_path, monkeypatch, executor
):
    monkeypatch.setenv("MISHAP", "lost")
    said, records = broken(tmp_path, executor=executor, checkpoint_every_s=0)
    assert {r.run.is_teacher for r in records.values()} == {True}
    assert "device cpu no longer answers (CUDA error: device-side assert" in said
    assert "finished runs and checkpoints are kept: the same command goes on" in said
    assert "an index out of range" in said
    assert len(open_checkpoints(tmp_path)) == 2 * 5  # with scratch and kd
    monkeypatch.delenv("MISHAP")
    failed, records = run(tmp_path)
    assert failed == 0
    same(records)
    if executor == "here":  # in this process, where it counts: a step done again
        assert hungry.calls == {1: steps + 1, 2: steps + 1, 3: steps}


def test_a_lost_device_in_an_own_loop(run, broken, same, tmp_path, monkeypatch):
    monkeypatch.setenv("ALONE", "lost")
    said, records = broken(tmp_path, ["alone"])
    assert "no CUDA-capable device is detected; noticed in alone in epoch 2" in said
    assert "digits-mlp/alone/0" not in records
    monkeypatch.undo()
    failed, records = run(tmp_path, ["alone"])
    assert failed == 0
    same(records)


@pytest.fixture
def full_disk(monkeypatch):
    """A function: from now on files whose names contain a word cannot be written."""
    real = os.fsync

    def fill(word):
        def fsync(handle):
            if word in str(Path(f"/proc/self/fd/{handle}").readlink()):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(handle)

        monkeypatch.setattr(os, "fsync", fsync)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not tell the name of an open file")
    return fill


def test_checkpoints_that_cannot_be_written_cost_nothing(
    run, same, full_disk, tmp_path, capsys
):
    full_disk(".ckpt")
    failed, records = run(tmp_path, checkpoint_every_s=0)
    assert failed == 0
    same(records)
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("a checkpoint could not be written: No space left on device") == 2
    assert open_checkpoints(tmp_path) == set()


@pytest.mark.parametrize("word", [".safetensors", ".json"])
def test_a_record_that_cannot_be_written_ends_the_command(
    run, broken, same, hungry, full_disk, tmp_path, monkeypatch, word
):
    failed, _ = run(tmp_path, ["kd"])  # and the teacher, and scratch
    assert failed == 0
    full_disk(word)
    said, records = broken(tmp_path)
    assert set(records).isdisjoint(MEMBERS)
    assert f"error: cannot write {tmp_path / 'digits'}" in said
    assert "No space left on device" in said
    assert "free space there" in said
    assert len(open_checkpoints(tmp_path)) == 3
    monkeypatch.undo()
    before = hungry.calls.copy()
    failed, records = run(tmp_path)
    assert failed == 0
    same(records)
    assert hungry.calls == before  # trained already: only measured and recorded


@pytest.mark.slow
def test_a_file_size_limit_is_survived(plugin, run, same, tmp_path):
    """Real failures of writing, in every file of more than 8 kB."""
    command = [sys.executable, "-m", "kdbench.cli", "run", "--no-speed"]
    command += [
        "--seeds",
        "1",
        "--epochs",
        "2",
        "-p",
        "digits-mlp",
        "--executor",
        "here",
    ]
    command += ["--plugin", str(plugin), "--out", str(tmp_path), "-s", ",".join(HUNGRY)]
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -f 8; exec "$@"', "bash", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    said = " ".join((limited.stdout + limited.stderr).split())
    assert limited.returncode == 1, said
    assert "cannot write" in said
    assert "File too large" in said
    assert "Traceback" not in said
    failed, records = run(tmp_path)
    assert failed == 0
    same(records)


def test_a_checkpoint_of_another_version_is_said_to_be(
    run, same, undisturbed, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "ENGINE", 0)
        checkpoint.save(
            tmp_path / "digits" / "checkpoints",
            undisturbed[MEMBERS[0]].id,
            {"position": [0, 1]},
        )
    failed, records = run(tmp_path)
    assert failed == 0
    same(records)
    said = " ".join(capsys.readouterr().out.split())
    assert f"{HUNGRY[0]}: its checkpoint is of another version of kdbench" in said
