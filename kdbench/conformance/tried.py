"""What is tried, trained by the engine in a host that has our parts and it alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from kdbench.api import Compression, Dataset, Model, UserError, hookimpl
from kdbench.config import PairDefinition, Suite
from kdbench.conformance.checks import Broken
from kdbench.conformance.trainings import RECIPE
from kdbench.conformance.watched import passed_over
from kdbench.execute import make_jobs
from kdbench.perform import perform
from kdbench.plan import make_plan
from kdbench.plugins import Host
from kdbench.records import Record
from kdbench.settings import put_back, settings
from kdbench.store import Results, load

PART = 128
"""Items of a dataset that a model is trained on, of train and of test."""

TRIED = "-tried"
"""Put behind the names of what is tried: ours may be among them."""


class Handed:
    """A plugin of what it is given."""

    __name__ = "handed"

    def __init__(
        self,
        datasets: Sequence[Dataset] = (),
        models: Sequence[Model] = (),
        compressions: Sequence[Compression] = (),
    ):
        self._datasets = list(datasets)
        self._models = list({model.name: model for model in models}.values())
        self._compressions = list(compressions)

    @hookimpl
    def kdbench_datasets(self) -> list[Dataset]:
        return self._datasets

    @hookimpl
    def kdbench_models(self) -> list[Model]:
        return self._models

    @hookimpl
    def kdbench_compressions(self) -> list[Compression]:
        return self._compressions


def ours(*handed: Handed) -> Host:
    """A host with our own parts and what it is handed; no other plugin."""
    return Host(only=(), found=(), modules=handed)


def everyone() -> Host:
    """A host with all plugins that are installed, whatever KDBENCH_PLUGINS says."""
    return Host(only={point.name for point in entry_points(group="kdbench")})


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder to train in; settings that training changes are put back."""
    before = settings()
    try:
        with passed_over(), tempfile.TemporaryDirectory() as name:
            yield Path(name)
    finally:
        put_back(before)


@dataclass(frozen=True)
class Trial:
    """What is trained: the student for an epoch on the labels, beside its teacher."""

    dataset: Dataset
    teacher: Model
    student: Model
    compression: Compression | None = None
    strategies: tuple[str, ...] = ("scratch",)

    def host(self) -> Host:
        packed = [self.compression] if self.compression else []
        return ours(
            Handed(
                [_renamed(self.dataset)],
                [_renamed(self.teacher), _renamed(self.student)],
                [_renamed(one) for one in packed],
            )
        )

    def suite(self) -> Suite:
        """It, as a suite."""
        packed = (f"{self.compression.name}{TRIED}",) if self.compression else ()
        pair = PairDefinition(
            teacher=self.teacher.name + TRIED, student=self.student.name + TRIED
        )
        recipe: dict[str, Any] = {**RECIPE, "epochs": 1, "lr": 0.01}
        if self.dataset.stored_shape:
            size = self.dataset.input_shape[-1]
            recipe |= {"resized_crop": True, "image_size": size}
        return Suite(
            name="tried",
            datasets=(self.dataset.name + TRIED,),
            pairs=("tried",),
            define_pairs={"tried": pair},
            strategies=self.strategies,
            compress=packed,
            seeds=1,
            recipe=recipe,
        )

    def results(self) -> Results:
        """What the training leaves. Raises Broken where it was refused."""
        try:
            with workplace() as folder:
                host = self.host()
                plan = make_plan(self.suite(), host, {})
                if plan.skipped:
                    raise Broken(plan.skipped[0][1])
                items = {self.dataset.name + TRIED: PART}
                for job in make_jobs(plan, host, items, folder, None, "cpu", 60.0, 1):
                    perform(job, host, lambda _: None, lambda: False)
                return load([folder])
        except (Broken, UserError) as error:
            raise Broken(str(error).replace(TRIED, "")) from error

    def record(self) -> Record:
        """The last student's record. Raises Broken where a training failed."""
        records = self.results().records
        for record in records:
            if record.status == "failed":
                said = f"{record.run.label}: {record.reason}"
                raise Broken(said.replace(TRIED, ""))
        students = [r for r in records if not r.run.is_teacher]
        return max(students, key=lambda r: len(r.run.compression))


R = TypeVar("R", Dataset, Model, Compression)


def _renamed(thing: R) -> R:
    return replace(thing, name=thing.name + TRIED)
