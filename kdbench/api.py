"""What a plugin author sees: batches, the strategy and its contract, errors.

What hooks return besides strategies is in `offers`, and to be had from here too.

torch is imported only for type checking, so that records, tables and reports work
where torch is not installed.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, get_type_hints

import pluggy
from pydantic import TypeAdapter, ValidationError

from kdbench.offers import Data as Data
from kdbench.offers import Dataset as Dataset
from kdbench.offers import Executor as Executor
from kdbench.offers import Finished as Finished
from kdbench.offers import Measure as Measure
from kdbench.offers import Model as Model
from kdbench.offers import Pair as Pair
from kdbench.offers import Renderer as Renderer
from kdbench.offers import Shape as Shape
from kdbench.offers import Source as Source
from kdbench.offers import Split as Split
from kdbench.offers import SuiteFile as SuiteFile
from kdbench.records import Recipe
from kdbench.tasks import Head, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

hookimpl = pluggy.HookimplMarker("kdbench")


class UserError(Exception):
    """A mistake the user can mend: says what, where and what to do next. Exit 2."""


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> UserError:
    """The error for a name that does not exist, with its near matches."""
    options = sorted(known)
    near = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
    place = f" in {where}" if where else ""
    if near:
        hint = "did you mean " + " or ".join(repr(option) for option in near) + "?"
    else:
        hint = f"known: {', '.join(options) or 'none'}"
    return UserError(f"unknown {kind} {name!r}{place}; {hint}")


# --- what a batch looks like to a strategy -------------------------------------------


@dataclass(frozen=True, slots=True)
class Outputs:
    """One model's answer to one batch.

    `logits` is (B, C), or (B, K) numbers of a regression, on the scale of the batch's
    targets. `features` maps each tapped name to its tensor, in forward
    order: (B, C, H, W) for a stage of a convnet, (B, D) for a dense layer.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)


VIEWS = ("strong", "mixup", "cutmix")
"""Further views of a batch of images that a strategy may ask for."""


@dataclass(frozen=True, slots=True)
class ExtraView:
    """A batch of images seen in another way, and everyone's answers to it.

    `inputs` is (B, C, H, W). In a mixture `share` (B,) of an image is its own and the
    rest that of the image at `partner` (B,) in the batch; a loss is mixed likewise.
    "strong" has another crop and mirror, RandAugment and cutout, and shares of one.
    """

    inputs: Tensor
    partner: Tensor
    share: Tensor
    students: tuple[Outputs, ...]
    teachers: tuple[Outputs, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """One training step as a strategy sees it. All tensors are on one device.

    `inputs` is (B, ...) normalised float, or (B, L) token ids; `targets` is (B,) class
    indices, or as `task` says (numbers standardised by the training set); `index` is
    (B,) positions in the training set; `labelled` is (B,) bool, all true unless the
    strategy sets `label_fraction`. `students` and `teachers` are never empty lists for
    a strategy that asked for them. Teacher tensors carry no gradient and are shared:
    read them, never write to them. `progress` runs from 0 to 1 over the training;
    `epoch` counts from 0 and has a fraction inside an epoch. `generator` is the
    strategy's own random stream (on the CPU). `views` has what the strategy's own
    `views` asks for, by name.
    """

    task: Task
    inputs: Tensor
    targets: Tensor
    index: Tensor
    labelled: Tensor
    students: tuple[Outputs, ...]
    teachers: tuple[Outputs, ...]
    adapters: nn.Module | None
    progress: float
    epoch: float
    generator: torch.Generator
    views: Mapping[str, ExtraView] = field(default_factory=dict)

    @property
    def student(self) -> Outputs:
        """The first student: the one that is measured."""
        return self.students[0]

    @property
    def teacher(self) -> Outputs:
        """The first teacher."""
        return self.teachers[0]

    def heads(self) -> Iterator[tuple[Head, Batch]]:
        """Each head of a multi-task as a batch of its own; features are whole."""

        def part(outputs: Outputs, head: int) -> Outputs:
            views = list(self.task.split(outputs.logits, self.targets))
            return dataclasses.replace(outputs, logits=views[head].outputs)

        views = self.task.split(self.student.logits, self.targets)
        for k, view in enumerate(views):
            yield (
                view.head,
                dataclasses.replace(
                    self,
                    task=view.head.task,
                    targets=view.targets,
                    students=tuple(part(s, k) for s in self.students),
                    teachers=tuple(part(t, k) for t in self.teachers),
                ),
            )


@dataclass(frozen=True, slots=True)
class Tapped:
    """One side of a pair before training: actual shapes, without the batch axis.

    `shapes` maps the strategy's taps and "logits" to shapes such as (64, 8, 8) or
    (128,). `model` is a private copy to read (classifier weights, batch-norm
    statistics); when a pair is only being checked its tensors have no data.
    """

    name: str
    shapes: Mapping[str, Shape]
    model: nn.Module

    @property
    def stages(self) -> dict[str, Shape]:
        """The tapped stages, in forward order."""
        return {k: v for k, v in self.shapes.items() if k.startswith("stage")}


class Strategy:
    """How a student learns. Subclass it as a frozen, keyword-only dataclass.

    Fields are hyper-parameters: typed, with a default, a unit and a source in the
    comment behind them. Override `loss` (level 1); add `taps` and `adapters` (level 2);
    set `students`, `teachers` or `label_fraction` (level 3); or override `train` and
    drive your own loop (level 4). Override `target` too where students without
    gradients (a tree, a support vector machine) can learn the same way.
    """

    name: str
    family: str = "other"
    paper: str = ""
    """Authors, year and arXiv number or venue."""
    tasks: tuple[str, ...] = ("classification",)
    """Of "classification", "regression" and "multi-task". For the last, a strategy
    without taps is given one head at a time, and the engine adds up the weighted terms;
    one with taps is given the whole batch."""
    taps: tuple[str, ...] = ()
    """Features wanted from both sides: "stage2", "stages", "pooled", a module path."""
    students: int = 1
    """How many students train together; the first one is measured."""
    teachers: int = 1
    """How many teachers: trained from seeds 0, 1, ... unless the pair names several."""
    views: tuple[str, ...] = ()
    """Of "strong", "mixup" and "cutmix": further views of each batch of images, made
    once for all strategies that ask; the teachers' answers to them are shared, too."""
    label_fraction: float = 1.0
    """Share of the training labels that may be used; the rest is `~batch.labelled`."""
    needs_probabilities: bool = True
    """Whether it learns more from its teachers than their arg-max."""
    learners: tuple[str, ...] = ("gradient",)
    """Level 4: which students it drives, "gradient" or "fitted"."""

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        """Why this strategy cannot run on the pair, in one sentence, or None."""
        return None

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module | None:
        """Trainable parts and memory, built from the actual shapes; not deployed."""
        return None

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar terms; their sum is minimised and each is logged."""
        raise TypeError(f"{type(self).__name__} must override loss() or train()")

    def target(self, batch: Batch) -> Tensor:
        """What a fitted student learns for each item, from labels and teachers.

        (B, C) probabilities, or (B, K) numbers of a regression; `students` of the batch
        is empty.
        """
        raise TypeError(f"{type(self).__name__} does not override target()")

    def train(self, context: Context) -> nn.Module:
        """Level 4: drive the whole training and return the student to deploy."""
        raise TypeError(f"{type(self).__name__} does not override train()")

    @classmethod
    def drives_itself(cls) -> bool:
        """Whether this is a level 4 strategy."""
        return cls.train is not Strategy.train

    @classmethod
    def teaches(cls, learner: str) -> bool:
        """Whether it can train such a student: "gradient" or "fitted"."""
        if cls.drives_itself():
            return learner in cls.learners
        wanted = Strategy.loss if learner == "gradient" else Strategy.target
        return getattr(cls, wanted.__name__) is not wanted

    @classmethod
    def parameters(cls) -> dict[str, Any]:
        """Hyper-parameter name -> default."""
        if not dataclasses.is_dataclass(cls):
            return {}
        return {f.name: f.default for f in dataclasses.fields(cls)}

    @classmethod
    def configured(cls, values: Mapping[str, Any]) -> Self:
        """An instance with these hyper-parameters.

        Raises UserError for an unknown name (nearest match given), a value of the wrong
        type, or one that the strategy itself refuses.
        """
        hints = get_type_hints(cls)
        ready = {}
        for key, value in values.items():
            if key not in cls.parameters():
                what = f"hyper-parameter of strategy {cls.name!r}:"
                raise unknown(what, key, cls.parameters())
            try:
                ready[key] = TypeAdapter(hints[key]).validate_python(value)
            except ValidationError as error:
                why = error.errors()[0]["msg"]
                raise UserError(f"{cls.name}[{key}={value}]: {why}") from None
            if isinstance(ready[key], float) and not math.isfinite(ready[key]):
                raise UserError(f"{cls.name}[{key}={value}]: must be finite")
        try:
            return cls(**ready)
        except Exception as error:
            raise UserError(f"{cls.name}: {error}") from error


class Context(ABC):
    """What a level 4 strategy drives: the engine's parts, checkpointed for it.

    Everything handed out here (students, optimisers, `state`) is saved at the end of
    every epoch and restored on resume, so `train` must keep nothing else between
    epochs.
    """

    recipe: Recipe
    task: Task
    students: list[nn.Module]
    teachers: list[nn.Module]
    state: dict[str, float]
    """Numbers that must survive an interruption."""

    @abstractmethod
    def epochs(self) -> Iterator[int]:
        """Epochs still to do; each one that ends is evaluated and checkpointed."""

    @abstractmethod
    def batches(self) -> Iterator[Batch]:
        """This epoch's batches; `students` and `teachers` of each are empty."""

    def items(self) -> Iterator[Batch]:
        """The training set in order, every item once and as it is: for what is fitted.

        Counts as one epoch.
        """
        return self.batches()

    @abstractmethod
    def optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The recipe's optimiser over these; the context keeps its learning rate."""

    @abstractmethod
    def log(self, term: str, value: Tensor) -> None:
        """Record a term's value for the loss curve of this epoch."""
