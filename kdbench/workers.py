"""Worker processes on this machine: the "local" executor.

A worker that dies takes no other run with it: its group is tried again run by run, in
processes of their own, and only a run that dies alone is recorded as failed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from time import monotonic
from typing import Any

from kdbench.atomic import Unwritable
from kdbench.claims import claimed, put_off, recorded_since
from kdbench.engine import Stopped
from kdbench.engine.faults import DeviceLost
from kdbench.execute import split
from kdbench.job import Emit, Job
from kdbench.perform import perform
from kdbench.plugins import Host
from kdbench.provenance import environment
from kdbench.recording import make_record
from kdbench.records import Run
from kdbench.stopping import SIGNALS
from kdbench.store import write_record

_SPAWN = multiprocessing.get_context("spawn")  # safe beside torch's threads, and CUDA
PATIENCE_S = 20.0


def in_workers(
    jobs: Sequence[Job],
    workers: int,
    host: Host,
    emit: Emit,
    stop: Callable[[], bool],
) -> None:
    """Run the jobs in worker processes, each after those it needs.

    Jobs of one thread run `workers` at a time, the others one at a time. Raises
    Stopped, with everything checkpointed, when `stop()` turns true, and DeviceLost or
    Unwritable where a worker meets them.
    """
    small = [job for job in jobs if _is_small(job)]
    large = [job for job in jobs if not _is_small(job)]
    held: set[str] = set()
    for part, count in ((small, workers), (large, 1)):
        if part:
            _Pool(part, min(count, len(part)), host, emit, stop, held).run()


def _is_small(job: Job) -> bool:
    """Whether others may run beside it; a device other than the CPU is for one."""
    return job.threads == 1 and job.device == "cpu"


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: Job | None = None
    trains: bool = False
    """Whether it has begun with its job: until then a kill loses nothing."""


class _Pool:
    def __init__(
        self,
        jobs: Sequence[Job],
        size: int,
        host: Host,
        emit: Emit,
        stop: Callable[[], bool],
        held: set[str],
    ):
        """`held` are the ids of runs that other kdbench processes train."""
        self._waiting = deque(jobs)
        self._unfinished = {job.id: job for job in jobs}
        self._size = size
        self._host = host
        self._emit = emit
        self._stop = stop
        self._stopping = _SPAWN.Event()
        self._workers: list[_Worker] = []
        self._recorded: set[str] = set()
        self._held = held

    def run(self) -> None:
        try:
            while self._unfinished:
                if self._stop():
                    raise Stopped
                self._hand_out()
                self._listen()
        except (KeyboardInterrupt, Stopped, DeviceLost, Unwritable):
            self._wind_down()
            raise
        finally:
            for worker in self._workers:
                worker.process.kill()
                worker.process.join()

    def _hand_out(self) -> None:
        """Give every idle worker a job whose needs are met."""
        while len(self._workers) < self._size:
            self._workers.append(_start(self._host, self._stopping))
        for worker in self._workers:
            if worker.job is None:
                job = self._next()
                if job is None:
                    return
                try:
                    worker.pipe.send(job)
                except OSError:  # it died while idle: a new one takes its place
                    worker.process.join()
                    self._workers.remove(worker)
                    return
                self._waiting.remove(job)
                worker.job = job

    def _next(self) -> Job | None:
        """The first job whose needs are met, once those to put off are away."""
        awaited = {r.id for job in self._unfinished.values() for r in job.group.runs}
        for job in [j for j in self._waiting if not j.needs & awaited]:
            if not put_off(job, self._held, self._tell):
                return job
            self._waiting.remove(job)
            self._unfinished.pop(job.id)
        return None

    def _tell(self, event: tuple[Any, ...]) -> None:
        if event[0] in ("record", "elsewhere"):
            self._recorded.add(event[1].id)
        elif event[0] == "held":
            self._held.add(event[1].id)
        self._emit(event)

    def _listen(self) -> None:
        """Pass on what the workers say."""
        pipes = [worker.pipe for worker in self._workers if worker.job]
        for ready in wait(pipes, timeout=0.2):
            worker = next(w for w in self._workers if w.pipe is ready)
            try:
                event = worker.pipe.recv()
            except (EOFError, OSError):
                self._died(worker)
                continue
            self._hear(worker, event)

    def _hear(self, worker: _Worker, event: tuple[Any, ...]) -> None:
        """Take in what a worker says. Raises what keeps it from going on at all."""
        if event[0] == "broken":
            raise event[1]
        if event[0] == "idle":
            assert worker.job is not None  # noqa: S101 - it was given one
            self._unfinished.pop(worker.job.id, None)
            worker.job = None
            worker.trains = False
            return
        worker.trains |= event[0] == "started"
        self._tell(event)

    def _died(self, worker: _Worker) -> None:
        worker.process.join()
        self._workers.remove(worker)
        job = worker.job
        assert job is not None  # noqa: S101 - only busy workers are listened to
        left = [run for run in job.group.runs if not self._is_settled(job, run)]
        code = worker.process.exitcode
        what = f"signal {-code}" if code and code < 0 else f"exit code {code}"
        if len(job.group.runs) > 1:
            self._tell(
                ("note", f"a worker process died ({what}); trying its runs one by one")
            )
            singles = [j for j in split(job) if j.group.runs[0] in left]
            self._waiting.extendleft(reversed(singles))
            self._unfinished.pop(job.id)
            self._unfinished |= {j.id: j for j in singles}
            return
        if left:
            self._fail(job, f"its process died ({what})")
        self._unfinished.pop(job.id)

    def _is_settled(self, job: Job, run: Run) -> bool:
        """Whether it is nothing to try again; its process may have died after it."""
        told = run.id in self._recorded | self._held
        return told or recorded_since(job, run) is not None

    def _fail(self, job: Job, reason: str) -> None:
        """Record that these runs failed, unless another process has them by now."""
        with claimed(job, self._tell) as mine:
            for run in mine.group.runs if mine else ():
                if job.group.again:  # what had finished before stays as it is
                    self._tell(("note", f"{run.label}, to be measured again: {reason}"))
                    continue
                record = make_record(
                    run,
                    self._host,
                    environment(job.device, job.threads),
                    status="failed",
                    reason=reason,
                )
                write_record(job.folder, record)
                self._tell(("record", record))

    def _wind_down(self) -> None:
        """Let every worker that trains checkpoint and leave; hear them out."""
        self._stopping.set()
        end = monotonic() + PATIENCE_S
        while monotonic() < end and self._workers:
            for worker in list(self._workers):
                if not self._hear_out(worker):
                    worker.process.kill()
                    worker.process.join()
                    self._workers.remove(worker)
        if self._workers:
            self._tell(
                (
                    "note",
                    f"{len(self._workers)} worker processes did not stop within "
                    f"{PATIENCE_S:.0f} s and are ended: their last checkpoints serve",
                )
            )

    def _hear_out(self, worker: _Worker) -> bool:
        """Take in what it still says, and tell whether to wait for more."""
        try:
            while worker.pipe.poll(0.05):
                self._hear(worker, worker.pipe.recv())
        except (EOFError, OSError, DeviceLost):  # it has left, or does so now
            return False
        return worker.trains


def _start(host: Host, stopping: Event) -> _Worker:
    """A worker that loads the plugins that this process has."""
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(
        target=_work, args=(theirs, host.files, host.only, stopping), daemon=True
    )
    with _signals_held_back():  # the child inherits it, until it has its own handler
        process.start()
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """A Ctrl-C or SIGTERM meanwhile arrives afterwards, where the system can do so."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(SIGNALS))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(
    pipe: Connection,
    files: Sequence[Path],
    only: Set[str] | None,
    stopping: Event,
) -> None:
    """A worker's life: jobs in, events out, until told to stop or left alone."""
    for number in SIGNALS:  # the whole group of processes gets them: the parent acts
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(SIGNALS))
    threading.Thread(target=_die_with_parent, daemon=True).start()
    host = Host(files=files, only=only)

    def emit(event: tuple[Any, ...]) -> None:
        pipe.send(event)

    while not stopping.is_set():
        if not pipe.poll(0.2):
            continue
        job: Job = pipe.recv()
        try:
            with claimed(job, emit) as mine:
                if mine:
                    perform(mine, host, emit, stopping.is_set)
        except Stopped:
            return
        except (DeviceLost, Unwritable) as error:  # would fail every other run, too
            pipe.send(("broken", error))
            return
        except BaseException:  # noqa: BLE001 - it ends here, and is printed
            traceback.print_exc()
            os._exit(1)  # the parent sees a dead worker and goes on without it
        pipe.send(("idle",))


def _die_with_parent() -> None:
    """A kill -9 of the parent must not leave workers behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
