"""A job performed: trained, measured and recorded."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kdbench.api import Data, Model
from kdbench.atomic import Unwritable, clear_unfinished, write_whole
from kdbench.engine import Stopped, checkpoint
from kdbench.engine.device import settle
from kdbench.engine.faults import (
    DeviceLost,
    OutOfMemory,
    raise_if_machine,
    reason_of,
    release_memory,
    told_apart,
)
from kdbench.engine.feed import Feed
from kdbench.engine.graphs import recorder_for
from kdbench.engine.learner import Learner
from kdbench.engine.lockstep import train
from kdbench.engine.profile import profiled
from kdbench.engine.saver import Saver
from kdbench.engine.solo import Solo
from kdbench.engine.teacher import FrozenTeacher, TeacherStage, weights_hash
from kdbench.finishing import seen
from kdbench.job import Emit, Job
from kdbench.measure import measure_all
from kdbench.measure.quality import bitmask, correct
from kdbench.measure.size import is_as_built, parameters, serialised
from kdbench.memory import halves
from kdbench.plugins import Host
from kdbench.provenance import environment
from kdbench.recording import make_record, strategy_of, trained_teacher, weights_path
from kdbench.records import Run
from kdbench.store import write_record

L = TypeVar("L", Learner, Solo)


def perform(job: Job, host: Host, emit: Emit, stop: Callable[[], bool]) -> None:
    """Run a job to its records in this process. Raises Stopped when asked to stop.

    Where memory runs out, the group goes on in two halves from its checkpoints: no bit
    depends on company. Raises DeviceLost and Unwritable, which no run is to blame for:
    those that are open get no record, and the same command goes on with them.
    """
    recipe = job.group.runs[0].recipe
    settle(torch.device(job.device), job.threads, recipe.deterministic)
    left, why = _attempt(job, host, emit, stop)
    release_memory()
    if len(left) == len(job.group.runs) == 1:
        _Work(job, host, emit).fail(
            left[0],
            f"needs more memory than there is, even alone ({why}); a smaller "
            "batch_size needs less, as another recipe with tables of its own",
        )
    elif len(left) == 1:
        emit(("note", f"out of memory ({why}): {left[0].label} goes on alone"))
        alone = replace(job.group, id=left[0].id, runs=tuple(left))
        perform(replace(job, group=alone), host, emit, stop)
    elif left:
        emit(("note", f"out of memory ({why}): the group goes on in two halves"))
        for half in halves(job.group, left):
            perform(replace(job, group=half), host, emit, stop)


def _attempt(
    job: Job, host: Host, emit: Emit, stop: Callable[[], bool]
) -> tuple[Sequence[Run], str]:
    """Run a job; what is left of it where memory ran out, and the words of that.

    A failure of the group as a whole is recorded for each run that has no record yet.
    """
    work = _Work(job, host, emit)
    try:
        with told_apart(work.device, f"the group of {job.group.runs[0].label}"):
            if job.group.solo:
                work.solo(stop)
            else:
                work.lockstep(stop)
    except OutOfMemory as fault:
        return work.open, str(fault)
    except (Stopped, DeviceLost, Unwritable):
        raise
    except Exception as error:  # noqa: BLE001 - isolation: recorded, others go on
        for run in list(work.open):
            work.fail(run, reason_of(error))
    return (), ""


class _Work:
    """The parts of one job."""

    def __init__(self, job: Job, host: Host, emit: Emit):
        self.job = job
        self.host = host
        self.emit = emit
        self.open = list(job.group.runs)
        self.device = torch.device(job.device)
        self.environment = environment(job.device, job.threads)

    def prepare(self) -> None:
        """Data and teachers; whatever is missing raises."""
        first = self.job.group.runs[0]
        self.dataset = self.host.dataset(first.dataset)
        data = _load(self.dataset.load, self.job.data_dir)
        self.task = self.dataset.task
        self.feed = Feed(data, self.task, first.recipe, first.seed, self.device)
        self.recorder = recorder_for(self.device)
        self.teacher_ids: list[str] = []
        self.teachers: list[tuple[Model, nn.Module]] = []
        self.teacher_logits: Tensor | None = None
        for run in self.job.group.teachers:
            self._add_teacher(run)
        self.saver = Saver(
            self.job.folder / "checkpoints", self.job.checkpoint_every_s, self._note
        )

    def _add_teacher(self, run: Run) -> None:
        """Load a teacher; what learns from one that is not there fails alone."""
        try:
            spec, folder = self.host.model(run.students[0]), self.job.folder
            module, logits = trained_teacher(
                run, spec, self.dataset, folder, self.feed, self.environment
            )
            self.teachers.append((spec, module))
            self.teacher_ids.append(run.id)
            if self.teacher_logits is None:  # the first one measures fidelity
                self.teacher_logits = logits
        except Exception as error:  # noqa: BLE001 - isolation: recorded, others go on
            raise_if_machine(error, self.device, f"its teacher {run.students[0]}")
            for student in list(self.open):
                if run.id in student.teacher_runs:
                    self.fail(student, f"{reason_of(error)} before training")

    def lockstep(self, stop: Callable[[], bool]) -> None:
        self.prepare()
        learners = []
        wanted: list[list[str]] = [[] for _ in self.teachers]
        for run in list(self.open):
            learner = self._learner(run)
            if learner is not None:
                learners.append(learner)
                for k in learner.uses:
                    wanted[k] += learner.strategy.taps
                self.emit(("started", run))
        teachers = [
            FrozenTeacher(spec, module, taps, self.feed)
            for (spec, module), taps in zip(self.teachers, wanted, strict=True)
        ]
        stage = TeacherStage(teachers, self.feed, self.job.folder)
        saver, tell = self.saver, self._tell
        try:
            with (
                told_apart(self.device, "what the group shares"),
                self._profiled(learners, stop) as ended,
            ):
                train(learners, stage, self.feed, saver, ended, tell, self.finish)
                for learner in learners:
                    if learner.failure is None:
                        self._finish_guarded(learner)
        except Stopped:
            saver.tell_losses()
            raise
        except (OutOfMemory, Unwritable):
            saver.save([x for x in learners if x.whole and x.run in self.open])
            saver.tell_losses()
            raise

    def _profiled(
        self, learners: Sequence[Learner], stop: Callable[[], bool]
    ) -> AbstractContextManager[Callable[[], bool]]:
        """What the training asks after every step, with a look at it where wanted."""
        if not self.job.profile:
            return nullcontext(stop)
        name = re.sub(r"[^\w.-]+", "_", self.job.group.title)
        path = self.job.folder / "profile" / f"{name}-{self.job.id}.json"
        return profiled(learners, path, self.device, stop, self._tell_times)

    def _tell_times(self, learner: Learner | Solo) -> None:
        learner.trace.settle()
        self.emit(("profile", learner.run, learner.trace.times))

    def _learner(self, run: Run) -> Learner | None:
        """The run's learner, resumed; None, and a record, where it cannot be built."""
        try:
            return self._resumed(run, self._fresh)
        except Exception as error:  # noqa: BLE001 - isolation: recorded, others go on
            raise_if_machine(error, self.device, f"{run.label}, before training")
            self.fail(run, f"{reason_of(error)} before training")
            return None

    def _resumed(self, run: Run, build: Callable[[Run], L]) -> L:
        """What `build` builds, as its checkpoint has it; as built where none fits."""
        built = build(run)
        folder = self.saver.folder
        saved = checkpoint.load(
            folder, run.id, lambda text: self._note(f"{run.label}: {text}")
        )
        if saved is None:
            return built
        try:
            built.restore(saved)
        except Exception as error:  # noqa: BLE001 - it starts again instead
            raise_if_machine(error, self.device, f"{run.label}, before training")
            self._note(
                f"{run.label}: its checkpoint does not fit: it starts again "
                f"({reason_of(error)})"
            )
            checkpoint.discard(folder, run.id)
            return build(run)
        return built

    def _fresh(self, run: Run) -> Learner:
        strategy = strategy_of(run, self.host)
        return Learner(
            run,
            strategy,
            [self.host.model(name) for name in run.students],
            self.teachers,
            [self.teacher_ids.index(i) for i in run.teacher_runs[: strategy.teachers]],
            self.feed,
            self.dataset,
            self.recorder,
        )

    def solo(self, stop: Callable[[], bool]) -> None:
        self.prepare()
        if not self.open:
            return
        [run] = self.job.group.runs
        learner = self._resumed(run, self._solo)
        self.emit(("started", run))
        try:
            learner.drive(self.saver, stop, self._tell)
        except Stopped:
            self.saver.tell_losses()
            raise
        finally:
            if self.job.profile:
                self._tell_times(learner)
        self.finish(learner)

    def _solo(self, run: Run) -> Solo:
        """With teachers of its own: it hooks them."""
        return Solo(
            run,
            strategy_of(run, self.host),
            [self.host.model(name) for name in run.students],
            [deepcopy(module) for _, module in self.teachers],
            self.feed,
            self.dataset,
        )

    def _note(self, text: str) -> None:
        self.emit(("note", text))

    def _tell(self, learner: Learner | Solo, epoch: int, value: float) -> None:
        self.emit(("epoch", learner.run, epoch, self.task.headline, value))

    def _finish_guarded(self, learner: Learner) -> None:
        """A student that cannot be measured or kept fails alone."""
        try:
            self.finish(learner)
        except Exception as error:  # noqa: BLE001 - isolation: recorded, others go on
            where = "after training"
            raise_if_machine(error, self.device, f"{learner.run.label} {where}")
            self.fail(learner.run, f"{reason_of(error)} {where}")

    def finish(self, learner: Learner | Solo) -> None:
        """Measure the student, keep its weights, write its record."""
        run = learner.run
        trace = learner.trace
        adapters = learner.adapters
        shared = ("data_share_s", "teacher_share_s")
        cost: dict[str, float | None] = {
            **{name: value for name, value in trace.cost.items() if name not in shared},
            "train_s": sum(trace.cost[k] for k in ("own_s", "data_s", "teacher_s")),
            "train_shared_s": sum(
                trace.cost[k] for k in ("own_s", "data_share_s", "teacher_share_s")
            ),
            "adapter_parameters": 0 if adapters is None else parameters(adapters),
        }
        if learner.failure is not None:
            self.fail(run, learner.failure, curves=trace.curves, cost=cost)
            return
        spec = self.host.model(run.students[0])
        student = learner.student.eval()
        if spec.deploy is not None:
            student = spec.deploy(deepcopy(student)).eval()  # it may yet be saved
        leading = self.teachers[0] if self.teachers else None
        finished = seen(
            spec, student, self.dataset, self.feed, leading, self.teacher_logits
        )
        measures = [offer.thing for offer in self.host.all("measures")]
        values = measure_all(measures, "run", finished, self.job.measures)
        numbers, problems = values.numbers, values.problems
        if not is_as_built(spec, self.dataset, numbers["parameters"]):
            speed = measure_all(measures, "model", finished, self.job.measures)
            numbers, problems = numbers | speed.numbers, problems + speed.problems
        for problem in problems:
            self._note(f"{run.label}: {problem}")
        write_whole(weights_path(self.job.folder, run.id), serialised(student))
        self._record(
            run,
            status="finished",
            curves=trace.curves,
            cost=cost,
            measures=numbers,
            lists=values.lists,
            test_items=len(finished.logits),
            correct=None
            if self.task.columns
            else bitmask(correct(finished.logits, self.feed.test_targets)),
            weights_sha256=weights_hash(student),
        )

    def fail(self, run: Run, reason: str, **known: Any) -> None:
        self._record(run, status="failed", reason=reason, **known)

    def _record(self, run: Run, **values: Any) -> None:
        record = make_record(run, self.host, self.environment, **values)
        write_record(self.job.folder, record)
        self.open.remove(run)
        with suppress(OSError):  # what is left over harms nobody: the record stands
            checkpoint.discard(self.job.folder / "checkpoints", run.id)
            clear_unfinished(weights_path(self.job.folder, run.id))
        self.emit(("record", record))


@cache
def _load(load: Callable[[Path | None, bool], Data], data_dir: Path | None) -> Data:
    """A dataset, once for each process."""
    return load(data_dir, False)
