"""One job: a group trained, measured and recorded, in whatever process it is given to.

Self-contained and picklable: names are resolved through the plugins of that process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kdbench.api import Data, Finished, Model, Strategy
from kdbench.engine import Stopped, checkpoint
from kdbench.engine.build import build_students
from kdbench.engine.feed import Feed
from kdbench.engine.learner import Learner, reason_of
from kdbench.engine.lockstep import Saver, train
from kdbench.engine.solo import Solo
from kdbench.engine.teacher import TeacherStage, predict, weights_hash
from kdbench.measure import measure_all
from kdbench.measure.quality import bitmask, correct
from kdbench.measure.size import parameters, serialised
from kdbench.models.taps import TappedModel
from kdbench.plan import Group
from kdbench.plugins import Host
from kdbench.provenance import environment, now
from kdbench.records import Record, Run
from kdbench.store import read_record, write_record
from kdbench.tasks import headline_of
from kdbench.weights import drift

SPEED_SAMPLE = 256

Emit = Callable[[tuple[Any, ...]], None]
"""Events: ("started", run), ("epoch", run, epoch, headline, value),
("record", record), ("note", text)."""


@dataclass(frozen=True)
class Job:
    """A group and all it needs to run anywhere. `needs` are ids of jobs before it."""

    group: Group
    folder: Path
    data_dir: Path | None
    device: str
    threads: int
    plugin_files: tuple[Path, ...] = ()
    checkpoint_every_s: float = 60.0
    work: float = 1.0
    """Roughly what an epoch of one of its runs takes, to tell the time left."""
    early: Mapping[str, int] = field(default_factory=dict)
    """By run id the epochs that its phases take before the recipe's first."""
    needs: frozenset[str] = frozenset()

    @property
    def id(self) -> str:
        return self.group.id


def perform(job: Job, host: Host, emit: Emit, stop: Callable[[], bool]) -> None:
    """Run a job to its records in this process. Raises Stopped when asked to stop.

    A failure of the group as a whole is recorded for each run that has no record yet.
    """
    torch.set_num_threads(job.threads)
    work = _Work(job, host, emit)
    try:
        if job.group.solo:
            work.solo(stop)
        else:
            work.lockstep(stop)
    except (KeyboardInterrupt, Stopped):
        raise
    except Exception as error:  # noqa: BLE001 - isolation: recorded, others go on
        for run in list(work.open):
            work.fail(run, reason_of(error))


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
        self.teacher_ids: list[str] = []
        self.teachers: list[tuple[Model, nn.Module]] = []
        self.teacher_logits: Tensor | None = None
        for run in self.job.group.teachers:
            self._add_teacher(run)
        self.saver = Saver(self.job.folder / "checkpoints", self.job.checkpoint_every_s)

    def _add_teacher(self, run: Run) -> None:
        """Load a teacher; what learns from one that is not there fails alone."""
        try:
            spec, module, logits = self._teacher(run)
            self.teachers.append((spec, module))
            self.teacher_ids.append(run.id)
            if self.teacher_logits is None:  # the first one measures fidelity
                self.teacher_logits = logits
        except Exception as error:  # noqa: BLE001 - isolation: recorded, others go on
            for student in list(self.open):
                if run.id in student.teacher_runs:
                    self.fail(student, f"{reason_of(error)} before training")

    def _teacher(self, run: Run) -> tuple[Model, nn.Module, Tensor]:
        """A teacher known by its weights' hash and its headline, measured again."""
        spec = self.host.model(run.students[0])
        [module] = build_students(run, [spec], self.dataset)
        name = f"its teacher {spec.name} #{run.seed}"
        record = read_record(self.job.folder / f"{run.id}.json")
        if not isinstance(record, Record) or record.status != "finished":
            raise RuntimeError(f"{name} failed: {getattr(record, 'reason', None)}")
        module.load_state_dict(load_file(weights_path(self.job.folder, run.id)))
        if weights_hash(module) != record.weights_sha256:
            raise RuntimeError(f"{name} has other weights than its record names")
        module.to(self.device).eval().requires_grad_(False)
        logits = predict(module, self.feed)
        changed = drift(
            record.headline,
            record.measures.get(record.headline.name),
            headline_of(self.task, logits, self.feed.test_targets),
            record.test_items,
            record.environment,
            self.environment,
        )
        if changed:
            raise RuntimeError(f"{name} {changed}")
        return spec, module, logits

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
        stage = TeacherStage(
            [
                TappedModel(spec, module, taps, self.feed.recipe.precision)
                for (spec, module), taps in zip(self.teachers, wanted, strict=True)
            ]
        )
        train(learners, stage, self.feed, self.saver, stop, self._tell, self.finish)
        for learner in learners:
            if learner.failure is None:
                self._finish_guarded(learner)

    def _learner(self, run: Run) -> Learner | None:
        """The run's learner, resumed; None, and a record, where it cannot be built."""
        try:
            learner = self._fresh(run)
            saved = checkpoint.load(self.saver.folder, run.id)
            if saved:
                try:
                    learner.restore(saved)
                except Exception as error:  # noqa: BLE001 - it starts again instead
                    self.emit(("note", f"{run.label} starts again: {reason_of(error)}"))
                    checkpoint.discard(self.saver.folder, run.id)
                    learner = self._fresh(run)
        except Exception as error:  # noqa: BLE001 - isolation: recorded, others go on
            self.fail(run, f"{reason_of(error)} before training")
            return None
        return learner

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
        )

    def solo(self, stop: Callable[[], bool]) -> None:
        self.prepare()
        if not self.open:
            return
        [run] = self.job.group.runs
        learner = Solo(
            run,
            strategy_of(run, self.host),
            [self.host.model(name) for name in run.students],
            [module for _, module in self.teachers],
            self.feed,
            self.dataset,
        )
        self.emit(("started", run))
        learner.drive(self.saver, stop, self._tell)
        self.finish(learner)

    def _tell(self, learner: Learner | Solo, epoch: int, value: float) -> None:
        self.emit(("epoch", learner.run, epoch, self.task.headline, value))

    def _finish_guarded(self, learner: Learner) -> None:
        """A student that cannot be measured or kept fails alone."""
        try:
            self.finish(learner)
        except Exception as error:  # noqa: BLE001 - isolation: recorded, others go on
            self.fail(learner.run, f"{reason_of(error)} after training")

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
            student = spec.deploy(student).eval()
        logits = predict(student, self.feed)
        finished = Finished(
            model=student,
            task=self.task,
            device=self.job.device,
            sample=self.dataset.example(SPEED_SAMPLE).to(self.device)
            if self.dataset.vocabulary
            else self.feed.sample(SPEED_SAMPLE),
            logits=logits,
            targets=self.feed.test_targets,
            teacher_logits=self.teacher_logits,
        )
        measures = [offer.thing for offer in self.host.all("measures")]
        values, problems = measure_all(measures, "run", finished)
        if not self._is_standard(spec, values):
            speed, more = measure_all(measures, "model", finished)
            values, problems = values | speed, problems + more
        for problem in problems:
            self.emit(("note", f"{run.label}: {problem}"))
        _write_atomically(weights_path(self.job.folder, run.id), serialised(student))
        self._record(
            run,
            status="finished",
            curves=trace.curves,
            cost=cost,
            measures=values,
            test_items=len(logits),
            correct=None
            if self.task.columns
            else bitmask(correct(logits, self.feed.test_targets)),
            weights_sha256=weights_hash(student),
        )

    def _is_standard(self, spec: Model, values: dict[str, float | None]) -> bool:
        """Whether the student is what its model builds, timed later on its own.

        A fitted one depends on what it learned, and a level 4 strategy may return
        another network: they are timed here, while other runs may be training.
        """
        if spec.learner == "fitted":
            return False
        fresh = self.dataset.build(spec).eval()
        if spec.deploy is not None:
            fresh = spec.deploy(fresh)
        return parameters(fresh) == values["parameters"]

    def fail(self, run: Run, reason: str, **known: Any) -> None:
        self._record(run, status="failed", reason=reason, **known)

    def _record(self, run: Run, **values: Any) -> None:
        record = make_record(run, self.host, self.environment, **values)
        write_record(self.job.folder, record)
        checkpoint.discard(self.job.folder / "checkpoints", run.id)
        self.open.remove(run)
        self.emit(("record", record))


def strategy_of(run: Run, host: Host) -> Strategy:
    """What the run trains by; a teacher is trained as `scratch` is."""
    name = "scratch" if run.is_teacher else run.strategy
    return host.strategy(name).configured(run.params)


def make_record(
    run: Run, host: Host, environment: dict[str, Any], **values: Any
) -> Record:
    """A record of this run, attributed to the plugin of its strategy."""
    name = "scratch" if run.is_teacher else run.strategy
    offer = host.get("strategies", name)
    return Record(
        id=run.id,
        run=run,
        headline=host.dataset(run.dataset).task.headline,
        family="teacher" if run.is_teacher else offer.thing.family,
        plugin={
            "name": offer.plugin.name,
            "distribution": offer.plugin.distribution,
            "version": offer.plugin.version,
        },
        environment=environment,
        finished_at=now(),
        **values,
    )


def weights_path(folder: Path, run_id: str) -> Path:
    """Where a run's student lies."""
    return folder / "weights" / f"{run_id}.safetensors"


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


@cache
def _load(load: Callable[[Path | None, bool], Data], data_dir: Path | None) -> Data:
    """A dataset, once for each process."""
    return load(data_dir, False)
