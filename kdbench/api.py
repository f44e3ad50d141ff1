"""What a plugin author sees: every public type of kdbench on one page.

torch is imported only for type checking, so that records, tables and reports work
where torch is not installed.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_type_hints

import pluggy
from pydantic import TypeAdapter, ValidationError

from kdbench.records import Recipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

hookimpl = pluggy.HookimplMarker("kdbench")

Shape = tuple[int, ...]


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

    `logits` is (B, C). `features` maps each tapped name to its tensor, in forward
    order: (B, C, H, W) for a stage of a convnet, (B, D) for a dense layer.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """One training step as a strategy sees it. All tensors are on one device.

    `inputs` is (B, ...) normalised float; `targets` is (B,) class indices; `index` is
    (B,) positions in the training set; `labelled` is (B,) bool, all true unless the
    strategy sets `label_fraction`. `students` and `teachers` are never empty lists for
    a strategy that asked for them. Teacher tensors carry no gradient and are shared:
    read them, never write to them. `progress` runs from 0 to 1 over the training;
    `epoch` counts from 0 and has a fraction inside an epoch. `generator` is the
    strategy's own random stream (on the CPU).
    """

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

    @property
    def student(self) -> Outputs:
        """The first student: the one that is measured."""
        return self.students[0]

    @property
    def teacher(self) -> Outputs:
        """The first teacher."""
        return self.teachers[0]


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
    drive your own loop (level 4).
    """

    name: str
    family: str = "other"
    paper: str = ""
    """Authors, year and arXiv number or venue."""
    tasks: tuple[str, ...] = ("classification",)
    taps: tuple[str, ...] = ()
    """Features wanted from both sides: "stage2", "stages", "pooled", a module path."""
    students: int = 1
    """How many students train together; the first one is measured."""
    teachers: int = 1
    """How many teachers: trained from seeds 0, 1, ... unless the pair names several."""
    label_fraction: float = 1.0
    """Share of the training labels that may be used; the rest is `~batch.labelled`."""

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        """Why this strategy cannot run on the pair, in one sentence, or None."""
        return None

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module | None:
        """Trainable parts and memory, built from the actual shapes; not deployed."""
        return None

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar terms; their sum is minimised and each is logged."""
        raise TypeError(f"{type(self).__name__} must override loss() or train()")

    def train(self, context: Context) -> nn.Module:
        """Level 4: drive the whole training and return the student to deploy."""
        raise TypeError(f"{type(self).__name__} does not override train()")

    @classmethod
    def drives_itself(cls) -> bool:
        """Whether this is a level 4 strategy."""
        return cls.train is not Strategy.train

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

    @abstractmethod
    def optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The recipe's optimiser over these; the context keeps its learning rate."""

    @abstractmethod
    def log(self, term: str, value: Tensor) -> None:
        """Record a term's value for the loss curve of this epoch."""


# --- what the hooks return ------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a dataset asks for: `outputs` is the number of classes."""

    kind: Literal["classification"] = "classification"
    outputs: int


@dataclass(frozen=True, kw_only=True)
class Split:
    """Items of a split: `inputs` (N, ...) uint8 or float, `targets` (N,) int64."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True, kw_only=True)
class Data:
    """A loaded dataset. `mean` and `std` are per channel, on the scale of `inputs`."""

    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset by name. `load(data_dir, download)` raises UserError when missing."""

    name: str
    summary: str
    source: str
    task: Task
    input_shape: Shape
    load: Callable[[Path | None, bool], Data]
    embedded: bool = False


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model by name. `build(input_shape, outputs)` returns it freshly initialised.

    `taps` maps names (stem, stage1..N, pooled) to module paths, in forward order; the
    output of that module is the feature, or its input where the path ends in ":input".
    """

    name: str
    summary: str
    build: Callable[[Shape, int], nn.Module]
    taps: Mapping[str, str]
    classifier: str


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Teacher(s) and student(s) by model name; the first of each leads."""

    name: str
    teachers: tuple[str, ...]
    students: tuple[str, ...]
    summary: str = ""


@dataclass(frozen=True, kw_only=True)
class SuiteFile:
    """A suite by name: where its TOML lies."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Finished:
    """What a measure sees: a trained model and its answers on the whole test set.

    `logits` and `teacher_logits` are (N, C), `targets` (N,), on the CPU; the model is
    in eval mode on `device`. `teacher_logits` is None for the teacher itself and where
    there is none. `sample` is one normalised test batch of 256 (or all, if fewer).
    """

    model: nn.Module
    task: Task
    device: str
    sample: Tensor
    logits: Tensor
    targets: Tensor
    teacher_logits: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number about a finished student, or None where it cannot be had.

    `scope` "run" is computed for every run from its own weights; "model" once for each
    architecture, on an otherwise idle machine (speed).
    """

    name: str
    summary: str
    unit: str
    better: Literal["higher", "lower"]
    scope: Literal["run", "model"] = "run"
    compute: Callable[[Finished], float | Mapping[str, float] | None]
    """A mapping gives the number as "", and further ones as "<name>_<key>"."""


@dataclass(frozen=True, kw_only=True)
class Executor:
    """Where groups run: `start(jobs, workers, host, emit, stop)` until all ended."""

    name: str
    summary: str
    start: Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class Renderer:
    """A report format: `render(results, folder)` writes files and returns them."""

    name: str
    summary: str
    render: Callable[[Any, Path], Sequence[Path]]
