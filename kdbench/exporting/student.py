"""A finished student with its data, measured again before it is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kdbench.api import Data, Dataset, Model, Strategy, UserError
from kdbench.data.checks import loaded
from kdbench.engine.augment import centre, checked_size
from kdbench.engine.feed import Feed
from kdbench.engine.teacher import predict
from kdbench.exporting.runs import title_of
from kdbench.forms.files import Deployed
from kdbench.plugins import Host
from kdbench.recording import strategy_of
from kdbench.records import Record
from kdbench.students import finished_student
from kdbench.tasks import headline_of
from kdbench.weights import shown

TOLERANCE = 1e-4
"""How far an exported network's outputs may be off, over the largest output."""

OTHERS = 1e-3
"""How far a headline that counts no items may be off, over itself."""


@dataclass(frozen=True)
class Student:
    """A finished student with its data: `stored` (N, ...) test items as they are, and
    the network's `answers` to them, (N, outputs) in the targets' own unit.
    """

    record: Record
    dataset: Dataset
    spec: Model
    network: nn.Module
    data: Data
    feed: Feed
    stored: Tensor
    answers: Tensor

    @property
    def title(self) -> str:
        return title_of(self.record.run)

    def headline(self, answers: Tensor) -> float:
        """The headline of these answers to the test items, or another network's."""
        return headline_of(self.dataset.task, answers, self.feed.test_targets)

    def whole(self, network: nn.Module) -> Deployed:
        """This network, or a fresh one, with the student's preprocessing; on the CPU.

        The means and deviations of what is standardised are the feed's own.
        """
        numbers = {}
        if self.data.mean:
            numbers = {
                "mean": torch.tensor(self.data.mean),
                "std": torch.tensor(self.data.std),
            }
        if self.dataset.task.columns:
            row = torch.zeros(1, self.dataset.task.outputs, dtype=torch.float64)
            middle = self.feed.restored(row)
            spread = self.feed.restored(row + 1) - middle
            numbers |= {"middle": middle[0].float(), "spread": spread[0].float()}
        return Deployed(network.cpu(), **numbers).eval()


def finished(
    record: Record, host: Host, folder: Path, data_dir: Path | None, device: str
) -> Student:
    """The run's student, measured again on its data.

    Raises UserError where its weights are gone or others, its data are missing, or it
    does not measure here what its record says.
    """
    run = record.run
    dataset = host.dataset(run.dataset)
    data = loaded(dataset, data_dir, False)
    feed = Feed(data, dataset.task, run.recipe, run.seed, torch.device(device))
    teachers: list[tuple[Model, nn.Module]] = []
    if type(strategy_of(run, host)).deployed is not Strategy.deployed:
        # only their shapes are asked for: all weights lie in the student's file
        specs = [host.model(name) for name in run.teachers]
        teachers = [(s, dataset.build(s).to(device).eval()) for s in specs]
    spec, network = finished_student(record, host, dataset, folder, feed, teachers)
    stored = data.test.inputs
    if run.recipe.resized_crop:
        stored = centre(stored, checked_size(data.train.inputs, run.recipe))
    answers = predict(network, feed)
    student = Student(record, dataset, spec, network, data, feed, stored, answers)
    why = other_headline(student, answers)
    if why:
        raise UserError(
            f"{student.title} {why}: the data, their preprocessing or the model's code "
            "must be other ones"
        )
    return student


def other_headline(student: Student, answers: Tensor) -> str | None:
    """Why these answers do not measure what is on record, or None.

    Of items that are right or wrong one may differ, or as many as there are whose two
    largest outputs are closer than rounding can tell.
    """
    headline, known = student.record.headline, student.record.measures
    value, old = student.headline(answers), known.get(headline.name)
    if old is None:
        return f"has no {headline.title} on record to compare with"
    if headline.better == "higher":
        view = next(
            student.dataset.task.split(student.answers, student.feed.test_targets)
        )
        first, second = view.outputs.topk(2, 1).values.unbind(1)
        near = first - second <= 2 * TOLERANCE * view.outputs.abs().max()
        allowed = 100 / len(answers) * max(1, int(near.sum()))
    else:
        allowed = OTHERS * abs(old)
    if abs(value - old) <= allowed * (1 + 1e-6):
        return None
    return (
        f"measures {headline.title} {shown(headline, value)} here, and "
        f"{shown(headline, old)} when it was recorded"
    )
