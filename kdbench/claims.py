"""Which process trains which run, where several work on one results folder.

A run has a lock file. Who trains the run holds the lock until its record is written,
and the system frees it when that process ends, however it ends: what a killed one had
begun is there to be taken over. No clock and no process id decides anything.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from kdbench.api import UserError
from kdbench.atomic import Unwritable
from kdbench.job import Emit, Job
from kdbench.recording import weights_path
from kdbench.records import Record, Run
from kdbench.store import read_record

LOCKS = ".locks"
POLL_S = 0.5


@contextmanager
def locked(folder: Path, ids: Iterable[str]) -> Iterator[set[str]]:
    """Lock those of these runs that nobody else has locked, and yield their ids.

    Raises Unwritable where the file system cannot lock.
    """
    with ExitStack() as held:
        ours = set()
        for run_id in ids:
            try:
                (folder / LOCKS).mkdir(parents=True, exist_ok=True)
                lock = FileLock(folder / LOCKS / f"{run_id}.lock").acquire(timeout=0)
            except Timeout:
                continue
            except OSError as error:
                why = error.strerror or str(error)
                raise Unwritable(error.errno, why, str(folder / LOCKS)) from error
            held.enter_context(lock)
            ours.add(run_id)
        yield ours


def is_free(folder: Path, run_id: str) -> bool:
    """Whether nobody trains this run now."""
    with locked(folder, [run_id]) as ours:
        return bool(ours)


@contextmanager
def one_at_a_time(folder: Path, stop: Callable[[], bool]) -> Iterator[bool]:
    """Wait until no other process is within such a block for this folder.

    Yields false, without the lock, where `stop()` turns true before.
    """
    with ExitStack() as held:
        ours = False
        while not ours:
            try:
                held.enter_context(FileLock(folder / ".lock").acquire(timeout=POLL_S))
                ours = True
            except Timeout:
                if stop():
                    break
            except OSError as error:
                why = error.strerror or str(error)
                raise Unwritable(error.errno, why, str(folder / ".lock")) from error
        yield ours


def make_writable(folder: Path) -> None:
    """Make the folder where there is none. UserError where it cannot be worked in."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder), locked(folder, ["probe"]):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror or error}; choose another "
            "folder with --out DIR"
        ) from error


@contextmanager
def claimed(job: Job, emit: Emit) -> Iterator[Job | None]:
    """The part of the job that is this process's to do, or None; locked meanwhile.

    Told of the rest: ("held", run, ids) of a run that another process trains now, with
    the ids whose locks it waits for, and ("elsewhere", record) of one that another has
    trained since this command began.
    """
    runs = job.group.runs
    with locked(job.folder, [run.id for run in runs]) as ours:
        mine = []
        for run in runs:
            if run.id not in ours:
                emit(("held", run, frozenset({run.id})))
                continue
            record = None if job.anew else recorded_since(job, run)
            if record is None:
                mine.append(run)
            else:
                emit(("elsewhere", record))
        yield _with_runs(job, mine) if mine else None


def put_off(job: Job, held: Set[str], emit: Emit) -> bool:
    """Whether the job must wait for teachers that others train; its runs are told of.

    `held` are the ids of runs that other processes train.
    """
    awaited = job.needs & held
    if awaited:
        for run in job.group.runs:
            emit(("held", run, awaited))
    return bool(awaited)


def put_off_part(jobs: Sequence[Job], held: Set[str]) -> list[Job]:
    """The jobs once more, with no other runs than these."""
    again = [
        _with_runs(job, [run for run in job.group.runs if run.id in held])
        for job in jobs
    ]
    return [job for job in again if job.group.runs]


def recorded_since(job: Job, run: Run) -> Record | None:
    """The run's record, if it was written after this command looked at the folder.

    Of a failure too: it would fail again. A teacher counts only with its weights.
    """
    path = job.folder / f"{run.id}.json"
    if _digest(path) in (None, job.earlier.get(run.id)):
        return None
    try:
        record = read_record(path)
    except UserError:  # not whole: the run is made again
        return None
    if not isinstance(record, Record) or record.status == "skipped":
        return None
    has_weights = weights_path(job.folder, run.id).is_file()
    if run.is_teacher and record.status == "finished" and not has_weights:
        return None
    return record


def digests(folder: Path) -> Mapping[str, str]:
    """By its id what tells the present record of a run from a later one."""
    found = {path.stem: _digest(path) for path in folder.glob("*.json")}
    return {run_id: known for run_id, known in found.items() if known is not None}


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:  # there is none, or none that can be read
        return None


def _with_runs(job: Job, runs: Sequence[Run]) -> Job:
    group = dataclasses.replace(job.group, runs=tuple(runs))
    return dataclasses.replace(job, group=group)
