"""A job performed: trained, measured and recorded."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import TypeVar

import torch

from kdbench.atomic import Unwritable
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
from kdbench.engine.learner import Learner
from kdbench.engine.lockstep import train
from kdbench.engine.profile import profiled
from kdbench.engine.solo import Solo
from kdbench.engine.teacher import FrozenTeacher, TeacherStage
from kdbench.job import Emit, Job
from kdbench.measure.size import parameters
from kdbench.memory import halves
from kdbench.plugins import Host
from kdbench.prepared import Prepared
from kdbench.recording import (
    costs_of_both,
    strategy_of,
)
from kdbench.records import Run
from kdbench.settings import kept

L = TypeVar("L", Learner, Solo)


def perform(job: Job, host: Host, emit: Emit, stop: Callable[[], bool]) -> None:
    """Run a job to its records in this process. Raises Stopped when asked to stop.

    Where memory runs out, the group goes on in two halves from its checkpoints: no bit
    depends on company. Raises DeviceLost and Unwritable, which no run is to blame for:
    those that are open get no record, and the same command goes on with them.
    """
    recipe = job.group.runs[0].recipe
    settle(torch.device(job.device), job.threads, recipe.deterministic)
    left, why = attempt(Work(job, host, emit), stop)
    release_memory()
    if len(left) == len(job.group.runs) == 1:
        Work(job, host, emit).fail(
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


def attempt(work: Work, stop: Callable[[], bool]) -> tuple[Sequence[Run], str]:
    """Do the work; what is left of it where memory ran out, and the words of that.

    A failure of the group as a whole is recorded for each run that has no record yet.
    """
    group = work.job.group
    try:
        with told_apart(work.device, f"the group of {group.runs[0].label}"):
            if group.solo:
                work.solo(stop)
            else:
                work.lockstep(stop)
    except OutOfMemory as fault:
        return work.open, str(fault)
    except (Stopped, DeviceLost, Unwritable):
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - recorded, others go on
        for run in list(work.open):
            work.fail(run, reason_of(error))
    return (), ""


class Work(Prepared):
    """The training of one job."""

    learner: type[Learner] = Learner
    solo_learner: type[Solo] = Solo

    def lockstep(self, stop: Callable[[], bool]) -> None:
        self.prepare()
        learners = []
        wanted: list[list[str]] = [[] for _ in self.teachers]
        for run in list(self.open):
            if self._is_untrained(run):
                continue
            learner = self._learner(run)
            if learner is not None:
                learners.append(learner)
                for k in learner.uses:
                    wanted[k] += learner.strategy.taps
                self.emit(("started", run))
        if not learners:
            return
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
            with kept():
                return self._resumed(run, self.fresh)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - isolation: recorded, others go on
            raise_if_machine(error, self.device, f"{run.label}, before training")
            self.fail(run, f"{reason_of(error)} before training")
            return None

    def _resumed(self, run: Run, build: Callable[[Run], L]) -> L:
        """What `build` builds, as its checkpoint has it; as built where none fits."""
        built = build(run)
        folder = self.saver.folder
        saved = checkpoint.load(
            folder, run.id, lambda text: self.note(f"{run.label}: {text}")
        )
        if saved is None:
            return built
        try:
            built.restore(saved)
        except Exception as error:  # noqa: BLE001 - it starts again instead
            raise_if_machine(error, self.device, f"{run.label}, before training")
            self.note(
                f"{run.label}: its checkpoint does not fit: it starts again "
                f"({reason_of(error)})"
            )
            checkpoint.discard(folder, run.id)
            return build(run)
        return built

    def fresh(self, run: Run) -> Learner:
        strategy = strategy_of(run, self.host)
        specs = [self.host.model(name) for name in run.students]
        specs[0] = self.spec(run)
        return self.learner(
            run,
            strategy,
            specs,
            self.teachers,
            [self.teacher_ids.index(i) for i in run.teacher_runs[: strategy.teachers]],
            self.feed,
            self.dataset,
            self.recorder,
            self.source(run)[1] if run.compression else None,
        )

    def _is_untrained(self, run: Run) -> bool:
        """Whether the run needs no training, and is done: what cannot be fails alone.

        It is measured again, or is a compressed student that is only measured.
        """
        if not (self.job.group.again or run.measured_only):
            return False
        self.emit(("started", run))
        try:
            if self.job.group.again:
                self.complete(run)
            else:
                self._compress(run)
        except Exception as error:  # noqa: BLE001 - isolation: recorded, others go on
            raise_if_machine(error, self.device, f"{run.label}, not trained")
            self.fail(run, f"{reason_of(error)}, from a student that had finished")
        return True

    def _compress(self, run: Run) -> None:
        source, network = self.source(run)
        make = self.spec(run).from_teacher
        assert make is not None  # noqa: S101 - that of a compression has one
        student = make(network, self.dataset.input_shape, self.task.outputs)
        self.measured(run, student.to(self.device), source.cost)

    def solo(self, stop: Callable[[], bool]) -> None:
        self.prepare()
        if not self.open:
            return
        [run] = self.job.group.runs
        with kept():
            learner = self._resumed(run, self.alone)
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

    def alone(self, run: Run) -> Solo:
        """With teachers of its own: it hooks them."""
        return self.solo_learner(
            run,
            strategy_of(run, self.host),
            [self.host.model(name) for name in run.students],
            [deepcopy(module) for _, module in self.teachers],
            self.feed,
            self.dataset,
        )

    def _tell(self, learner: Learner | Solo, epoch: int, value: float) -> None:
        self.emit(("epoch", learner.run, epoch, self.task.headline, value))

    def _finish_guarded(self, learner: Learner) -> None:
        """A student that cannot be measured or kept fails alone."""
        try:
            with kept():
                self.finish(learner)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - isolation: recorded, others go on
            where = "after training"
            raise_if_machine(error, self.device, f"{learner.run.label} {where}")
            self.fail(learner.run, f"{reason_of(error)} {where}")

    def finish(self, learner: Learner | Solo) -> None:
        """Measure the student, keep its weights, write its record."""
        run = learner.run
        trace = learner.trace
        adapters = learner.adapters
        cost: dict[str, float | None] = {
            **trace.bill(),
            "adapter_parameters": 0 if adapters is None else parameters(adapters),
        }
        if run.compression:
            cost = costs_of_both(self.record_of(run.source).cost, cost)
        if learner.failure is not None:
            self.fail(run, learner.failure, curves=trace.curves, cost=cost)
            return
        self.measured(run, learner.student, cost, trace.curves)
