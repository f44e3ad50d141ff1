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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, get_type_hints

import pluggy
from pydantic import TypeAdapter, ValidationError

from kdbench.batches import VIEWS as VIEWS
from kdbench.batches import Batch as Batch
from kdbench.batches import ExtraView as ExtraView
from kdbench.batches import Outputs as Outputs
from kdbench.batches import Phase as Phase
from kdbench.batches import Tapped as Tapped
from kdbench.offers import Compression as Compression
from kdbench.offers import Data as Data
from kdbench.offers import Dataset as Dataset
from kdbench.offers import Executor as Executor
from kdbench.offers import Finished as Finished
from kdbench.offers import Measure as Measure
from kdbench.offers import Measured as Measured
from kdbench.offers import Model as Model
from kdbench.offers import Pair as Pair
from kdbench.offers import Renderer as Renderer
from kdbench.offers import Shape as Shape
from kdbench.offers import Source as Source
from kdbench.offers import Split as Split
from kdbench.offers import SuiteFile as SuiteFile
from kdbench.ramps import Ramp, parse_ramp
from kdbench.records import Recipe
from kdbench.tasks import Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = [
    "VIEWS",
    "Batch",
    "Compression",
    "Context",
    "Data",
    "Dataset",
    "Executor",
    "ExtraView",
    "Finished",
    "KdbenchDeprecationWarning",
    "Measure",
    "Measured",
    "Model",
    "Outputs",
    "Pair",
    "Phase",
    "Renderer",
    "Shape",
    "Source",
    "Split",
    "Strategy",
    "SuiteFile",
    "Tapped",
    "UserError",
    "hookimpl",
    "unknown",
]
"""What stays: tests/frozen/api-1.txt has it all, with signatures."""

hookimpl = pluggy.HookimplMarker("kdbench")


class UserError(Exception):
    """A mistake the user can mend: says what, where and what to do next. Exit 2."""


class KdbenchDeprecationWarning(DeprecationWarning):
    """A plugin uses what a later version will not have: says since when, what instead.

    `kdbench plugins` shows those of hooks; `--strict` makes all of them errors.
    """


LISTED = 20
"""Names that an error lists, at most; of more the first ten."""


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> UserError:
    """The error for a name that does not exist, with its near matches."""
    options = sorted(set(known))
    near = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
    place = f" in {where}" if where else ""
    if near:
        hint = "did you mean " + " or ".join(repr(option) for option in near) + "?"
    else:
        more = f", ... and {len(options) - 10} more" if len(options) > LISTED else ""
        some = options[:10] if more else options
        hint = f"known: {', '.join(some) or 'none'}{more}"
    return UserError(f"unknown {kind} {name!r}{place}; {hint}")


class Strategy:
    """How a student learns. Subclass it as a frozen, keyword-only dataclass.

    Fields are hyper-parameters: typed, with a default, a unit and a source in the
    comment behind them. Override `loss` (level 1); add `taps` and `adapters` (level 2);
    set `students`, `teachers`, `views`, `phases` or `label_fraction` (level 3); or
    override `train` and drive your own loop (level 4). Override `target` too where
    students without gradients (a tree, a support vector machine) can learn the same
    way.

    A field that ends in "temperature" must be > 0, one that ends in "_weight" or
    "_epochs" >= 0; a `__post_init__` of your own calls this one's.
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
    assistants: int = 0
    """How many of the pair's assistants it trains; they follow the students."""
    views: tuple[str, ...] = ()
    """Of `VIEWS`: further views of each batch, made once for all strategies that ask;
    the teachers' answers to them are shared, too."""
    student_views: tuple[str, ...] | None = None
    teacher_views: tuple[str, ...] | None = None
    """Which of these views each side answers, "" being the batch as it is; all where
    None. `students` or `teachers` are empty for the others."""
    label_fraction: float = 1.0
    """Share of the training labels that may be used; the rest is `~batch.labelled`."""
    needs_probabilities: bool = True
    """Whether it learns more from its teachers than their arg-max."""
    learners: tuple[str, ...] = ("gradient",)
    """Level 4: which students it drives, "gradient" or "fitted"."""
    replaces_classifier: bool = False
    """Whether `deployed` takes the student's classifier, and so its logits, away."""
    presets: Mapping[str, Mapping[str, Mapping[str, Any]]] = {}
    """Other settings by name ("authors"): pair -> hyper-parameters."""
    _ramps: Mapping[str, Ramp] = {}

    def __post_init__(self) -> None:
        """Raise ValueError for a temperature or weight that cannot be."""
        for name in self.parameters():
            value = getattr(self, name)
            if name.endswith("temperature") and not value > 0:
                raise ValueError(f"{name} must be > 0, not {value}")
            if name.endswith(("_weight", "_epochs")) and not value >= 0:
                raise ValueError(f"{name} must be >= 0, not {value}")

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        """Why this strategy cannot run on the pair, in one sentence, or None."""
        return None

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module | None:
        """Trainable parts and memory, built from the actual shapes; not deployed."""
        return None

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The loss's terms; of several heads one by one, unless it taps features."""
        if not batch.task.heads or self.taps:
            return self.loss(batch)
        return {
            f"{head.name}/{name}": head.weight * value
            for head, part in batch.heads()
            for name, value in self.loss(part).items()
        }

    def phases(self) -> tuple[Phase, ...]:
        """What is trained in turn; `batch.phase` tells `loss` where it is."""
        return (Phase(),)

    def deployed(
        self, students: Sequence[nn.Module], adapters: nn.Module | None
    ) -> nn.Module:
        """The network to measure and to keep, made once of the live parts."""
        return students[0]

    @property
    def deploys_another(self) -> bool:
        """Whether that is another network than its first student."""
        return type(self).deployed is not Strategy.deployed

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

    def values(self) -> dict[str, Any]:
        """Hyper-parameter name -> value, or the text of a ramp."""
        given = {name: getattr(self, name) for name in self.parameters()}
        return {**given, **{name: str(ramp) for name, ramp in self._ramps.items()}}

    def at(self, progress: float) -> Self:
        """The strategy with its ramps where they are at this share of the training."""
        now = {name: ramp.at(progress) for name, ramp in self._ramps.items()}
        return dataclasses.replace(self, **now) if now else self  # type: ignore[type-var]

    @classmethod
    def configured(cls, values: Mapping[str, Any]) -> Self:
        """An instance with these hyper-parameters.

        A weight or temperature may be a ramp over the training, such as "4->1". Raises
        UserError for an unknown name (nearest match given), a value of the wrong
        type, or one that the strategy itself refuses.
        """
        hints = get_type_hints(cls)
        ready = {}
        ramps: dict[str, Ramp] = {}
        ends: dict[str, float] = {}
        for key, value in values.items():
            if key not in cls.parameters():
                what = f"hyper-parameter of strategy {cls.name!r}:"
                raise unknown(what, key, cls.parameters())
            try:
                ramp = parse_ramp(value)
                if ramp:
                    ramps[key], ends[key] = ramp, ramp.end
                    value = ramp.start
                ready[key] = TypeAdapter(hints[key]).validate_python(value)
            except ValidationError as error:
                why = error.errors()[0]["msg"]
                raise UserError(f"{cls.name}[{key}={value}]: {why}") from None
            except ValueError as error:
                raise UserError(f"{cls.name}[{key}]: {error}") from None
            if isinstance(ready[key], float) and not math.isfinite(ready[key]):
                raise UserError(f"{cls.name}[{key}={value}]: must be finite")
        may = () if cls.drives_itself() else ("_weight", "temperature")
        for key in [key for key in ramps if not key.endswith(may)]:
            raise UserError(
                f"{cls.name}[{key}={ramps[key]}]: only weights and temperatures can "
                "change over the training, and not of one that drives its own loop"
            )
        try:
            cls(**ready | ends)
            made = cls(**ready)
        except Exception as error:
            raise UserError(f"{cls.name}: {error}") from error
        object.__setattr__(made, "_ramps", ramps)
        return made


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
