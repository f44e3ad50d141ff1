"""One `kdbench run`: from a checked suite to records, tables and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Set
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import typer

from kdbench.api import UserError
from kdbench.atomic import Unwritable
from kdbench.carrying import Carrier
from kdbench.catalogue import with_cards
from kdbench.claims import (
    digests,
    is_free,
    locked,
    make_writable,
    one_at_a_time,
    put_off_part,
)
from kdbench.config import Suite
from kdbench.engine import Stopped
from kdbench.engine.faults import DeviceLost
from kdbench.execute import (
    LEFT_OUT,
    check_data,
    find_device,
    make_jobs,
    usable,
)
from kdbench.job import Job
from kdbench.options import Options
from kdbench.plan import Plan, make_plan, results_folder
from kdbench.plugins import Host
from kdbench.profiling import Profile
from kdbench.progress import Progress
from kdbench.provenance import environment
from kdbench.recording import make_record
from kdbench.records import Record, Run
from kdbench.report import write
from kdbench.report.terminal import print_tables, wide_console
from kdbench.speeds import measure_speed
from kdbench.stopping import RESUMES, Stopping, late_words
from kdbench.store import Results, load, runs_in, write_record
from kdbench.teachers.store import Shared

BROKEN = 1
TIME_UP = 75
INTERRUPTED = 130
POLL_S = 0.5


class Session:
    """Checks everything, then runs what is open, then reports."""

    def __init__(
        self,
        host: Host,
        suite: Suite,
        options: Options,
        stopping: Stopping | None = None,
    ):
        self.host = host
        self.options = options
        self.suite = suite
        self.folder = results_folder(options.out, suite)
        self.console = wide_console()
        self.device = "cpu"
        self.failed: list[Record] = []
        self.stopping = stopping or Stopping()
        self._settled: set[str] = set()
        self._held: dict[str, Set[str]] = {}
        self._waited = False
        self.late = False
        self._timed = True
        self.profile = Profile()
        carried = options.import_state, options.export_state
        self.carrier = Carrier(
            host, suite, self.folder, *carried, self.stopping, self._say
        )
        self.shared = Shared(
            host, self.folder, options.data_dir, options.retrain_teachers
        )

    def run(self) -> int:
        """Train what is open, beside others on the folder, then report; the exit code.

        Raises UserError before anything was started or written.
        """
        started = monotonic()
        self._check_options()
        try:
            with self.stopping:
                self.carrier.start()
                plan = self.train()
                with self.carrier.written():  # with what was timed
                    code = self._finish(plan, monotonic() - started)
                self.carrier.tell_if_idle()
                return code
        except KeyboardInterrupt:
            self._say(
                "interrupted: everything finished so far is kept, and the rest is "
                f"checkpointed; {RESUMES}"
            )
            return INTERRUPTED
        except (DeviceLost, Unwritable) as error:
            typer.echo(f"error: {error}", err=True)
            return BROKEN

    def _check_options(self) -> None:
        options = self.options
        carried = options.import_state or options.export_state
        if carried and options.retrain_teachers:
            raise UserError(
                "--retrain-teachers starts anew each time, and --import-state and "
                "--export-state go on from what is there; leave out one or the other"
            )

    def train(self) -> Plan:
        """Run what is open to its records, or until the time is up.

        Raises KeyboardInterrupt when a user stops it.
        """
        options = self.options
        start = self.host.get("executors", options.executor).thing.start
        self.device = find_device(options.device)
        for kind in ("measures", "renderers"):  # every run needs them all
            self.host.all(kind)
        earlier = digests(self.folder)  # first: what is written later is another's
        finished = usable(self.folder, known_records(self.folder), self.host)
        if options.retrain_teachers:  # their students learn from them anew
            finished = {}
        make_plan(self.suite, self.host, finished)  # every name is right
        suite, items, notes = check_data(
            self.suite, self.host, options.data_dir, options.download
        )
        plan = make_plan(suite, self.host, finished)
        plan = replace(plan, notes=(*plan.notes, *notes))
        make_writable(self.folder)
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
            options.threads,
        )
        anew, profile = options.retrain_teachers, options.profile
        jobs = [
            replace(job, profile=profile, earlier=earlier, measures=suite.measures)
            for job in jobs
        ]
        jobs = [replace(job, anew=anew or job.group.again) for job in jobs]
        with self.carrier.written():
            try:
                self._run(jobs, start)
            except Stopped:
                if self.stopping.interrupted or not self.stopping.at_limit():
                    raise KeyboardInterrupt from None
                self.late = True
        return plan

    def _run(self, jobs: list[Job], start: Callable[..., None]) -> None:
        """Run the jobs, and those once more that other processes had and left."""
        with Progress(self.console, jobs) as progress:

            def emit(event: tuple[Any, ...]) -> None:
                progress.see(event)
                self._see(event, progress)

            while jobs:
                self._held.clear()
                with self.stopping.gently():
                    start(jobs, self.options.workers, self.host, emit, self.stopping)
                jobs = put_off_part(jobs, self._held.keys())
                if jobs:
                    self._wait(progress)

    def _wait(self, progress: Progress) -> None:
        """Until another process leaves a run that is waited for, done or not.

        Raises Stopped when the time is up.
        """
        if not self._waited:
            progress.note(
                f"waiting for another kdbench on {self.folder}: {len(self._held)} runs"
            )
        self._waited = True
        awaited = set().union(*self._held.values())
        while not any(is_free(self.folder, run_id) for run_id in awaited):
            if self.stopping():
                raise Stopped
            sleep(POLL_S)

    def _adopt(self, plan: Plan) -> tuple[Plan, dict[str, Record]]:
        """The plan with the teachers done that the cache has, and their records."""
        teachers = [r for group in plan.todo for r in group.runs if r.is_teacher]
        with locked(self.folder, [run.id for run in teachers]) as ours:
            found, notes = self.shared.take([r for r in teachers if r.id in ours])
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
        again = sum(len(group.runs) for group in plan.again)
        if again:
            self._say(
                f"{again} finished runs are measured again, and not trained: they lack "
                f"{' or '.join(self.suite.measures)}"
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
        """Tell the plugins, and keep what failed and what other processes have."""
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
        elif kind == "profile":
            self.profile.add(*rest)
        elif kind == "held":
            run, awaited = rest
            self._held[run.id] = awaited
        elif kind == "elsewhere":
            self._settled.add(rest[0].id)
        elif kind == "record":
            self._settled.add(rest[0].id)
            problems = self.host.emit("kdbench_run_finished", record=rest[0])
            if rest[0].status == "failed":
                self.failed.append(rest[0])
            self._give(rest[0], progress.note)
        for problem in problems:
            progress.note(problem)

    def _finish(self, plan: Plan, seconds: float) -> int:
        """Speed, tables and report; the exit code."""
        todo = {run.id for group in plan.todo for run in group.runs}
        if self.late and not known_records(self.folder):
            self._say(late_words(len(todo), timed=not self.options.speed))
            return TIME_UP
        with one_at_a_time(self.folder, self.stopping) as ours:
            problems = self._measure_speed(plan) if ours else []
            self.late, self._timed = self.late or not ours, self._timed and ours
            results = load([self.folder], plan.ids)
            results = with_cards(self.host, results, self.folder if ours else None)
            asked = results.only(plan.ids)
            print_tables(asked, self.console)
            page = self._report(results, problems)
        for table in self.profile.tables():
            self.console.print(table)
        if self.options.profile:
            where = self.folder / "profile"
            self._say(f"traces of some steps, for ui.perfetto.dev: {where}")
        status = Counter(record.status for record in asked.records)
        lost = plan.ids - {record.id for record in asked.records}
        for problem in problems:
            self._say(f"note: {problem}")
        for note in plan.notes:
            if note.startswith(LEFT_OUT):  # again: the tables have pushed it away
                self._say(note)
        if self.late:
            self._say(late_words(len(todo - self._settled), timed=self._timed))
        elif lost:
            self._say(f"{len(lost)} runs left no record: run the same command again")
        self._say(
            f"{status['finished']} runs finished, {status['failed']} failed, "
            f"{status['skipped']} skipped; trained in {seconds:.0f} s"
        )
        self.console.print(f"report: {page}", highlight=False, soft_wrap=True)
        if self.late:
            return TIME_UP
        return 1 if status["failed"] or lost or problems else 0

    def _measure_speed(self, plan: Plan) -> list[str]:
        """Time the models that have no speed yet; what could not be timed, and why."""
        if not self.options.speed:
            return []
        known = load([self.folder]).speed
        try:
            return measure_speed(
                plan, self.host, self.folder, self.device, known, self.stopping
            )
        except Stopped:
            self.late, self._timed = True, False
            return []

    def _report(self, results: Results, problems: list[str]) -> str:
        """Write the report; where its page is. Problems are added to."""
        if not self.options.report:
            return f"none; 'kdbench report {self.folder}' writes it"
        target = self.folder / "report"
        files: list[Path] = []
        try:
            renderers = [offer.thing for offer in self.host.all("renderers")]
            files = write(results, target, renderers)
        except (UserError, OSError) as error:
            problems.append(str(error))
        return str(next((f for f in files if f.suffix == ".html"), target))

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)


def known_records(folder: Path) -> list[Record]:
    """The records that lie there already; none where there is nothing."""
    return runs_in(folder) if folder.is_dir() else []
