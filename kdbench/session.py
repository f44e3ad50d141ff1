"""One `kdbench run`: from a checked suite to records, tables and the report."""

from __future__ import annotations

import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

from filelock import AcquireReturnProxy, FileLock, Timeout

from kdbench.api import UserError
from kdbench.config import Suite
from kdbench.execute import (
    LEFT_OUT,
    check_data,
    find_device,
    make_jobs,
    measure_speed,
    usable,
)
from kdbench.job import make_record
from kdbench.plan import Plan, make_plan, results_folder
from kdbench.plugins import Host
from kdbench.progress import Progress
from kdbench.provenance import environment
from kdbench.records import Record, Run
from kdbench.report import write
from kdbench.report.terminal import print_tables, wide_console
from kdbench.store import Results, load, write_record
from kdbench.teachers.store import Shared

INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run, none of which changes a result."""

    out: Path
    device: str
    data_dir: Path | None
    download: bool
    workers: int
    executor: str
    checkpoint_every_s: float
    retrain_teachers: bool = False


class Session:
    """Checks everything, then runs what is open, then reports."""

    def __init__(self, host: Host, suite: Suite, options: Options):
        self.host = host
        self.options = options
        self.suite = suite
        self.folder = results_folder(options.out, suite)
        self.console = wide_console()
        self.device = "cpu"
        self.failed: list[Record] = []
        self.shared = Shared(
            host, self.folder, options.data_dir, options.retrain_teachers
        )

    def run(self) -> int:
        """Train what is open, then report; the exit code.

        Raises UserError before anything was started or written.
        """
        started = monotonic()
        try:
            with _terminable():
                plan = self.train()
                return self._finish(plan, monotonic() - started)
        except KeyboardInterrupt:
            self.console.print(
                "interrupted: everything finished so far is kept, and the rest is "
                "checkpointed; the same command resumes",
                highlight=False,
            )
            return INTERRUPTED

    def train(self) -> Plan:
        """Run what is open to its records. Raises KeyboardInterrupt when stopped."""
        options = self.options
        start = self.host.get("executors", options.executor).thing.start
        self.device = find_device(options.device)
        for kind in ("measures", "renderers"):  # every run needs them all
            self.host.all(kind)
        finished = usable(self.folder, known_records(self.folder), self.host)
        if options.retrain_teachers:  # their students learn from them anew
            finished = {}
        make_plan(self.suite, self.host, finished)  # every name is right
        suite, items, notes = check_data(
            self.suite, self.host, options.data_dir, options.download
        )
        plan = make_plan(suite, self.host, finished)
        plan = replace(plan, notes=(*plan.notes, *notes))
        _make_writable(self.folder)
        with _only_one(self.folder):
            plan, adopted = self._adopt(plan)
            finished |= adopted
            self._announce(plan)
            for run in plan.done:
                self._reword(finished[run.id], run)
                self._give(finished[run.id], self._say)
            for run, reason in plan.skipped:
                self._skip(run, reason)
            jobs = make_jobs(
                plan,
                self.host,
                items,
                self.folder,
                options.data_dir,
                self.device,
                options.checkpoint_every_s,
            )
            with Progress(self.console, jobs) as progress:

                def emit(event: tuple[Any, ...]) -> None:
                    progress.see(event)
                    self._see(event, progress)

                start(jobs, options.workers, self.host, emit, lambda: False)
        return plan

    def _adopt(self, plan: Plan) -> tuple[Plan, dict[str, Record]]:
        """The plan with the teachers done that the cache has, and their records."""
        teachers = [r for group in plan.todo for r in group.runs if r.is_teacher]
        found, notes = self.shared.take(teachers)
        taken = tuple(run for run in teachers if run.id in found)
        todo = tuple(group for group in plan.todo if group.id not in found)
        notes = [*plan.notes, *notes]
        done = (*plan.done, *taken)
        return replace(plan, todo=todo, done=done, notes=tuple(notes)), found

    def _give(self, record: Record, say: Callable[[str], None]) -> None:
        for note in self.shared.give(record):
            say(note)

    def _announce(self, plan: Plan) -> None:
        todo = sum(len(group.runs) for group in plan.todo)
        self.console.print(
            f"suite [bold]{self.suite.name}[/]: {todo} runs to do in "
            f"{len(plan.todo)} groups, {len(plan.done)} done, "
            f"{len(plan.skipped)} skipped; device {self.device}",
            highlight=False,
        )
        for note in plan.notes:
            self._say(note)

    def _reword(self, record: Record, run: Run) -> None:
        """A finished run takes the suite's present words: they are not its identity."""
        if record.run != run:
            write_record(self.folder, record.model_copy(update={"run": run}))

    def _skip(self, run: Run, reason: str) -> None:
        record = make_record(
            run, self.host, environment(self.device, 0), status="skipped", reason=reason
        )
        write_record(self.folder, record)
        self.host.emit("kdbench_run_finished", record=record)

    def _see(self, event: tuple[Any, ...], progress: Progress) -> None:
        """Tell the plugins, and keep what failed."""
        kind, *rest = event
        problems: list[str] = []
        if kind == "started":
            problems = self.host.emit("kdbench_run_started", run=rest[0])
        elif kind == "epoch":
            run, epoch, headline, value = rest
            if epoch >= 1:  # not of phases before the recipe's first
                problems = self.host.emit(
                    "kdbench_epoch_finished",
                    run=run,
                    epoch=epoch,
                    values={headline.name: value},
                )
        elif kind == "record":
            problems = self.host.emit("kdbench_run_finished", record=rest[0])
            if rest[0].status == "failed":
                self.failed.append(rest[0])
            self._give(rest[0], progress.note)
        for problem in problems:
            progress.note(problem)

    def _finish(self, plan: Plan, seconds: float) -> int:
        """Speed, tables and report; the exit code."""
        known = load([self.folder]).speed
        problems = measure_speed(plan, self.host, self.folder, self.device, known)
        results = load([self.folder])
        asked = only(results, plan.ids)
        print_tables(asked, self.console)
        status = Counter(record.status for record in asked.records)
        lost = plan.ids - {record.id for record in asked.records}
        target = self.folder / "report"
        files: list[Path] = []
        try:
            renderers = [offer.thing for offer in self.host.all("renderers")]
            files = write(results, target, renderers)
        except UserError as error:
            problems.append(str(error))
        for problem in problems:
            self._say(f"note: {problem}")
        for note in plan.notes:
            if note.startswith(LEFT_OUT):  # again: the tables have pushed it away
                self._say(note)
        if lost:
            self._say(f"{len(lost)} runs left no record: run the same command again")
        self._say(
            f"{status['finished']} runs finished, {status['failed']} failed, "
            f"{status['skipped']} skipped; trained in {seconds:.0f} s"
        )
        page = next((f for f in files if f.suffix == ".html"), target)
        self.console.print(f"report: {page}", highlight=False, soft_wrap=True)
        return 1 if status["failed"] or lost or problems else 0

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)


def known_records(folder: Path) -> list[Record]:
    """The records that lie there already; none where there is nothing."""
    if not folder.is_dir() or not any(folder.glob("*.json")):
        return []
    try:
        return load([folder]).records
    except UserError:  # only damaged files: their runs are made again
        return []


def only(results: Results, ids: set[str]) -> Results:
    """The results of these runs."""
    return replace(results, records=[r for r in results.records if r.id in ids])


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror or error}; choose another "
            "folder with --out DIR"
        ) from error


def _only_one(folder: Path) -> AcquireReturnProxy[FileLock]:
    """One process at a time works on a folder; the lock dies with its process."""
    try:
        return FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another kdbench is working on {folder}; wait for it, or choose another "
            "folder with --out DIR"
        ) from None


class _terminable:  # noqa: N801 - used like a function
    """SIGTERM (a batch system's polite end) is treated as Ctrl-C."""

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGTERM, _interrupt)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
