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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from time import monotonic
from typing import Any

from kdbench.engine import Stopped
from kdbench.execute import split
from kdbench.job import Emit, Job, make_record, perform
from kdbench.plugins import Host
from kdbench.provenance import environment
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

    Jobs of one thread run `workers` at a time, the others one at a time.
    """
    small = [job for job in jobs if job.threads == 1]
    large = [job for job in jobs if job.threads != 1]
    for part, count in ((small, workers), (large, 1)):
        if part:
            _Pool(part, min(count, len(part)), host, emit, stop).run()


def _finished(job: Job) -> set[str]:
    """The job's runs that have a finished record on disk."""
    found = set()
    for run in job.group.runs:
        path = job.folder / f"{run.id}.json"
        if path.is_file() and '"status": "finished"' in path.read_text("utf-8"):
            found.add(run.id)
    return found


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: Job | None = None


class _Pool:
    def __init__(
        self,
        jobs: Sequence[Job],
        size: int,
        host: Host,
        emit: Emit,
        stop: Callable[[], bool],
    ):
        self._waiting = deque(jobs)
        self._unfinished = {job.id for job in jobs}
        self._size = size
        self._host = host
        self._emit = emit
        self._stop = stop
        self._stopping = _SPAWN.Event()
        self._workers: list[_Worker] = []
        self._recorded: set[str] = set()

    def run(self) -> None:
        try:
            while self._unfinished:
                self._hand_out()
                self._listen()
                if self._stop():
                    raise Stopped
        except (KeyboardInterrupt, Stopped):
            self._wind_down()
            raise
        finally:
            for worker in self._workers:
                worker.process.terminate()
                worker.process.join()

    def _hand_out(self) -> None:
        """Give every idle worker a job whose needs are met."""
        while len(self._workers) < self._size:
            self._workers.append(_start(self._host.files, self._stopping))
        for worker in self._workers:
            if worker.job is None:
                job = next(
                    (j for j in self._waiting if not j.needs & self._unfinished), None
                )
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
            if event[0] == "idle":
                assert worker.job is not None  # noqa: S101 - it was given one
                self._unfinished.discard(worker.job.id)
                worker.job = None
            else:
                if event[0] == "record":
                    self._recorded.add(event[1].id)
                self._emit(event)

    def _died(self, worker: _Worker) -> None:
        worker.process.join()
        self._workers.remove(worker)
        job = worker.job
        assert job is not None  # noqa: S101 - only busy workers are listened to
        known = self._recorded | _finished(job)  # it may have died after writing
        left = [run for run in job.group.runs if run.id not in known]
        code = worker.process.exitcode
        what = f"signal {-code}" if code and code < 0 else f"exit code {code}"
        if len(job.group.runs) > 1:
            self._emit(
                ("note", f"a worker process died ({what}); trying its runs one by one")
            )
            singles = [j for j in split(job) if j.group.runs[0] in left]
            self._waiting.extendleft(reversed(singles))
            self._unfinished |= {j.id for j in singles}
        else:
            for run in left:
                record = make_record(
                    run,
                    self._host,
                    environment(job.device, job.threads),
                    status="failed",
                    reason=f"its process died ({what})",
                )
                write_record(job.folder, record)
                self._emit(("record", record))
        self._unfinished.discard(job.id)

    def _wind_down(self) -> None:
        """Let every worker checkpoint what it does, and leave; hear them out."""
        self._stopping.set()
        end = monotonic() + PATIENCE_S
        while monotonic() < end and self._workers:
            for worker in list(self._workers):
                try:
                    while worker.pipe.poll(0.05):
                        event = worker.pipe.recv()
                        if event[0] != "idle":
                            self._emit(event)
                except (EOFError, OSError):
                    worker.process.join()
                    self._workers.remove(worker)


def _start(files: Sequence[Path], stopping: Event) -> _Worker:
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(
        target=_work, args=(theirs, tuple(files), stopping), daemon=True
    )
    with _sigint_held_back():  # the child inherits it, until it has its own handler
        process.start()
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _sigint_held_back() -> Iterator[None]:
    """A Ctrl-C meanwhile arrives afterwards (where the system can do that)."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, files: Sequence[Path], stopping: Event) -> None:
    """A worker's life: jobs in, events out, until told to stop or left alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_die_with_parent, daemon=True).start()
    host = Host(files=files)

    def emit(event: tuple[Any, ...]) -> None:
        pipe.send(event)

    while not stopping.is_set():
        if not pipe.poll(0.2):
            continue
        job: Job = pipe.recv()
        try:
            perform(job, host, emit, stopping.is_set)
        except Stopped:
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
