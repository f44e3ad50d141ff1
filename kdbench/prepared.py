"""A job with its data and teachers loaded, and how its students are put on record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.api import Data, Finished, Model
from kdbench.atomic import clear_unfinished, write_whole
from kdbench.engine import checkpoint
from kdbench.engine.faults import raise_if_machine, reason_of
from kdbench.engine.feed import Feed
from kdbench.engine.graphs import recorder_for
from kdbench.engine.saver import Saver
from kdbench.engine.teacher import weights_hash
from kdbench.finishing import seen
from kdbench.job import Emit, Job
from kdbench.measure import Values, measure_all
from kdbench.measure.quality import bitmask, correct
from kdbench.measure.size import is_as_built, serialised
from kdbench.plugins import Host
from kdbench.provenance import environment
from kdbench.recording import NoSource, make_record, trained_teacher, weights_path
from kdbench.records import Record, Run
from kdbench.store import read_record, write_record
from kdbench.students import finished_student


class Prepared:
    """What all of a job's runs share; `open` are those without a record yet."""

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
            self.job.folder / "checkpoints", self.job.checkpoint_every_s, self.note
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

    def spec(self, run: Run) -> Model:
        return self.host.compressed(run.students[0], run.compression)

    def source(self, run: Run) -> tuple[Record, nn.Module]:
        """The record and the network of the run that this one starts from.

        Raises NoSource, or UserError, where there is none.
        """
        record = self.record_of(run.source)
        return record, self._left_by(record)[1]

    def record_of(self, run_id: str) -> Record:
        path = self.job.folder / f"{run_id}.json"
        record = read_record(path) if path.is_file() else None
        if not isinstance(record, Record):
            raise NoSource(f"there is no record of the run {run_id} to start from")
        return record

    def _left_by(self, record: Record) -> tuple[Model, nn.Module]:
        places = [self.teacher_ids.index(i) for i in record.run.teacher_runs]
        return finished_student(
            record,
            self.host,
            self.dataset,
            self.job.folder,
            self.feed,
            [self.teachers[k] for k in places],
        )

    def complete(self, run: Run) -> None:
        """Give the record of a finished run the measures that were asked for."""
        record = self.record_of(run.id)
        values = self._look(*self._left_by(record), self.job.measures)[1]
        changes = {
            "measures": record.measures | values.numbers,
            "lists": record.lists | values.lists,
        }
        for problem in values.problems:
            self.note(f"{run.label}: {problem}")
        self._keep(record.model_copy(update=changes))

    def _look(
        self, spec: Model, student: nn.Module, names: Sequence[str] | None = None
    ) -> tuple[Finished, Values]:
        """The student with its answers, and its measures: all, or those named."""
        leading = self.teachers[0] if self.teachers else None
        finished = seen(
            spec, student, self.dataset, self.feed, leading, self.teacher_logits
        )
        measures = [
            offer.thing
            for offer in self.host.all("measures")
            if names is None or offer.thing.name in names
        ]
        return finished, measure_all(measures, "run", finished, self.job.measures)

    def measured(
        self,
        run: Run,
        student: nn.Module,
        cost: dict[str, float | None],
        curves: Mapping[str, list[float | None]] = MappingProxyType({}),
    ) -> None:
        """Measure what is deployed of the student, keep its weights, record it."""
        spec = self.spec(run)
        student = student.eval()
        if spec.deploy is not None:
            student = spec.deploy(deepcopy(student)).eval()  # it may yet be saved
        kept, known = serialised(student), weights_hash(student)
        finished, values = self._look(spec, student)
        numbers, lists, problems = values.numbers, values.lists, values.problems
        if not is_as_built(spec, self.dataset, numbers["parameters"]):
            measures = [offer.thing for offer in self.host.all("measures")]
            speed = measure_all(measures, "model", finished, self.job.measures)
            numbers, problems = numbers | speed.numbers, problems + speed.problems
            lists |= speed.lists
        for problem in problems:
            self.note(f"{run.label}: {problem}")
        write_whole(weights_path(self.job.folder, run.id), kept)
        self._record(
            run,
            status="finished",
            curves=dict(curves),
            cost=cost,
            measures=numbers,
            lists=lists,
            test_items=len(finished.logits),
            correct=None
            if self.task.columns
            else bitmask(correct(finished.logits, self.feed.test_targets)),
            weights_sha256=known,
        )

    def note(self, text: str) -> None:
        self.emit(("note", text))

    def fail(self, run: Run, reason: str, **known: Any) -> None:
        """Record a failure; one that had finished before stays as it is."""
        if run not in self.open:
            self.note(f"{run.label}, which has finished: {reason}")
            return
        if self.job.group.again:
            self.note(f"{run.label} could not be measured again: {reason}")
            self.open.remove(run)
            return
        self._record(run, status="failed", reason=reason, **known)

    def _record(self, run: Run, **values: Any) -> None:
        self._keep(make_record(run, self.host, self.environment, **values))

    def _keep(self, record: Record) -> None:
        run = record.run
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
