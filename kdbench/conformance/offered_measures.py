"""Checks of a measure, on finished students of real data that are embedded."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.api import Dataset, Finished, Measure, Model
from kdbench.conformance.beside import once
from kdbench.conformance.checks import Broken, DoesNotApply, check
from kdbench.conformance.targets import OfferSubject
from kdbench.conformance.tried import ours
from kdbench.conformance.untouched import watching
from kdbench.engine.feed import Feed
from kdbench.engine.teacher import predict, weights_hash
from kdbench.finishing import seen
from kdbench.records import Recipe
from kdbench.tasks import KINDS, label_loss

DATASETS = {
    "classification": "digits",
    "regression": "diabetes",
    "multi-task": "digits_and_ink",
}
"""By the kind of task, what students have learned."""

TEACHER, STUDENT = "mlp_bn_32_32", "mlp_bn_8_8"

EPOCHS = 2


@dataclass(frozen=True)
class Learned:
    """A teacher and a student that have learned a little of a dataset."""

    dataset: Dataset
    feed: Feed
    specs: tuple[Model, Model]
    networks: tuple[nn.Module, nn.Module]
    teacher_logits: Tensor

    def finished(self) -> Finished:
        """What a measure of every run sees; nothing is shared with another."""
        teacher, student = (copy.deepcopy(one) for one in self.networks)
        one = seen(
            self.specs[1],
            student,
            self.dataset,
            self.feed,
            (self.specs[0], teacher),
            self.teacher_logits.clone(),
        )
        return replace(one, targets=one.targets.clone(), sample=one.sample.clone())

    def teachers_own(self) -> Finished:
        """The same of the teacher, which has none, where nothing was held out."""
        spec, network = self.specs[0], copy.deepcopy(self.networks[0])
        one = seen(spec, network, self.dataset, self.feed, None, None)
        return replace(one, validation_logits=None, validation_targets=None)


@cache
def learned(task: str) -> Learned:
    host = ours()
    dataset = host.dataset(DATASETS[task])
    data = dataset.load(None, False)
    recipe = Recipe(batch_size=64, validation=0.1)
    feed = Feed(data, dataset.task, recipe, 0, torch.device("cpu"))
    specs = host.model(TEACHER), host.model(STUDENT)
    teacher, student = (_trained(spec, dataset, feed) for spec in specs)
    return Learned(dataset, feed, specs, (teacher, student), predict(teacher, feed))


def _trained(spec: Model, dataset: Dataset, feed: Feed) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = dataset.build(spec)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for place in range(EPOCHS * feed.steps):
        step = feed.at(*divmod(place, feed.steps))
        loss = label_loss(dataset.task, network(step.inputs), step.targets)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return network.eval()


def shown(measure: Measure, task: str) -> Finished:
    """A finished student, as the measure's scope has it."""
    one = learned(task).finished()
    if measure.scope == "run":
        return one
    return Finished(
        model=one.model,
        task=one.task,
        device=one.device,
        sample=one.sample,
        logits=one.logits[:0],
        targets=one.targets[:0],
        teacher_logits=None,
    )


@dataclass
class Computed:
    """What it came to on a student of this task."""

    task: str
    value: object


def _tasks(measure: Measure) -> list[str]:
    """Those that there are of its tasks; of the others `described` tells."""
    return [task for task in KINDS if task in measure.tasks]


@once
def computed(subject: OfferSubject) -> list[Computed] | str:
    """What it came to on each of its tasks, or what it raised."""
    measure: Measure = subject.offer.thing
    found = []
    for task in _tasks(measure):
        try:
            found.append(Computed(task, measure.compute(shown(measure, task))))
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            return f"on a {task} it raises {type(error).__name__}: {error}"
    return found


def _values(subject: OfferSubject) -> list[Computed]:
    found = computed(subject)
    if isinstance(found, str):
        raise DoesNotApply("it cannot be computed, see `computes`")
    return found


@check(
    "measure",
    what="For a finished student of each of its tasks it gives a finite number, None, "
    "a list of these, or a mapping from names to these.",
    why="Whatever else it gives, or raises, is an empty cell in every table.",
    fix="Return float(...) or value.item(), None where it cannot be had, and leave out "
    "of `tasks` what it is not defined for: a regression's `logits` are numbers "
    "(N, K), those of several heads are side by side (`finished.task.split`).",
)
def computes(subject: OfferSubject) -> None:
    found = computed(subject)
    if isinstance(found, str):
        raise Broken(found)
    wrong = [f"on a {one.task} {said}" for one in found for said in _odd(one.value)]
    if wrong:
        raise Broken("; ".join(wrong))


def _odd(value: object) -> Iterator[str]:
    """What is none of the things that a measure may come to."""
    named: Mapping[Any, Any] = value if isinstance(value, Mapping) else {"": value}
    for key, one in named.items():
        if not isinstance(key, str):
            yield f"it names a number {key!r}"
        several = isinstance(one, Sequence) and not isinstance(one, str)
        for number in one if several else [one]:
            where = f"{key} is" if key else "it is"
            if isinstance(number, Tensor):
                yield f"{where} a tensor {tuple(number.shape)}; return .item()"
            elif number is not None and not isinstance(number, Real):
                yield f"{where} {number!r}, a {type(number).__name__}"
            elif number is not None and not math.isfinite(number):
                yield f"{where} {number!r}, which is not finite"


@check(
    "measure",
    what="Computed once more for the same student it comes to the same.",
    why="Records are compared bit by bit; a measure that wanders makes one student "
    "look better than itself.",
    fix="Draw by a generator of your own with a fixed seed, keep nothing from one call "
    "to the next, and add up in one order.",
)
def same_twice(subject: OfferSubject) -> None:
    measure: Measure = subject.offer.thing
    if measure.scope == "model":
        raise DoesNotApply("it is of a model on this machine: times are never the same")
    for one in _values(subject):
        again = measure.compute(shown(measure, one.task))
        if repr(again) != repr(one.value):
            raise Broken(f"on a {one.task} it is {one.value!r}, then {again!r}")


@check(
    "measure",
    what="It leaves the student as it was (weights, buffers, mode, gradients, hooks), "
    "and the tensors it is shown.",
    why="The measures after it see the same student, and its weights are kept when all "
    "are done: what one changes, it changes in every run of every suite.",
    fix="Work on copies (copy.deepcopy(finished.model), logits.clone()), use "
    "torch.no_grad(), and remove hooks in `finally`.",
)
def student_kept(subject: OfferSubject) -> None:
    measure: Measure = subject.offer.thing
    for one in _values(subject):
        finished = shown(measure, one.task)
        before = _state(finished)
        measure.compute(finished)
        after = _state(finished)
        changed = [name for name in before if before[name] != after[name]]
        if changed:
            raise Broken(f"on a {one.task} it changes {', '.join(changed)}")


def _state(finished: Finished) -> dict[str, object]:
    """What must not change, to be compared."""
    model = finished.model
    parts = list(model.modules())
    found: dict[str, object] = {
        "the student's weights or buffers": weights_hash(model),
        "the student's mode": [part.training for part in parts],
        "what of the student wants a gradient": [
            (p.requires_grad, p.grad is None) for p in model.parameters()
        ],
        "the student's hooks": [
            (len(part._forward_hooks), len(part._forward_pre_hooks)) for part in parts
        ],
    }
    for name in ("sample", "logits", "targets", "teacher_logits", "validation_logits"):
        value = getattr(finished, name)
        if value is not None:
            found[name] = value.detach().cpu().contiguous().numpy().tobytes()
    return found


@check(
    "measure",
    what="It uses no global generator of torch, Python or NumPy, and changes no "
    "setting of the process.",
    why="It is computed between the trainings of other runs in the same process.",
    fix="Give what draws a generator of your own: torch.Generator().manual_seed(0), "
    "numpy.random.default_rng(0).",
)
def own_randomness(subject: OfferSubject) -> None:
    measure: Measure = subject.offer.thing
    for one in _values(subject):
        finished = shown(measure, one.task)
        with watching() as left:
            measure.compute(finished)
        left.refuse("computing it")


@check(
    "measure",
    what="It can be computed of a teacher, too: no teacher of its own, and nothing "
    "held out (teacher_logits, validation_logits and features() are None).",
    why="Teachers are measured by the same measures as their students, and a recipe "
    "need not hold out anything.",
    fix="Return None, or an empty mapping, where finished.teacher_logits is None.",
)
def no_teacher(subject: OfferSubject) -> None:
    measure: Measure = subject.offer.thing
    if measure.scope == "model":
        raise DoesNotApply("it sees no answers, whoever's model it is")
    for one in _values(subject):
        if any(_odd(one.value)):
            raise DoesNotApply("what it gives is odd anyway, see `computes`")
        try:
            value = measure.compute(learned(one.task).teachers_own())
        except Exception as error:
            what = f"without a teacher it raises {type(error).__name__}: {error}"
            raise Broken(f"on a {one.task} {what}") from error
        wrong = list(_odd(value))
        if wrong:
            raise Broken(f"on a {one.task} without a teacher {'; '.join(wrong)}")
