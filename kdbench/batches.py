"""What a strategy is shown: batches, answers, the two sides of a pair, its phases.

torch is imported only for type checking.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from kdbench.offers import Shape
from kdbench.records import Recipe
from kdbench.tasks import Head, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

T = TypeVar("T")


class Shared:
    """What was made of one answer, once for all learners, and how long that took.

    The engine reads it around a learner's step: after `begin()` and the step, `charges`
    has the time of each value that the learner asked for, whoever had it made, and
    `made` names those that were made inside this step. Times are those of `stopwatch`,
    whose result tells how long ago it was called: seconds, or what an engine measures.
    `constant` is for tests, whose teachers want gradients to show that none arrives.
    `copies` are classifiers that learners were given in place of the answer's own.
    """

    def __init__(self, outputs: Outputs):
        self.constant = False
        self.copies: list[nn.Linear] = []
        self.stopwatch: Callable[[], Callable[[], Any]] = _stopwatch
        self._of = (outputs.logits, outputs.classifier, dict(outputs.features))
        self._values: dict[Hashable, Any] = {}
        self._times: dict[Hashable, Any] = {}
        self._versions: list[tuple[Tensor, int]] = []
        self.begin()

    def begin(self) -> None:
        """From here on another learner asks."""
        self.charges: dict[Hashable, Any] = {}
        self.made: list[Hashable] = []

    @property
    def classifier(self) -> nn.Linear | None:
        """The answer's own."""
        return self._of[1]

    def belongs_to(self, outputs: Outputs) -> bool:
        """Whether these are the answer, or the same with fewer features."""
        logits, classifier, features = self._of
        return (
            outputs.logits is logits
            and any(outputs.classifier is x for x in (classifier, *self.copies))
            and all(features.get(k) is v for k, v in outputs.features.items())
        )

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of this key; `make` is called where there is none yet."""
        if key not in self._values:
            elapsed = self.stopwatch()
            value = make()
            self._versions += [(x, x._version) for x in _tensors(value)]
            self._times[key] = elapsed()
            self._values[key] = value
            self.made.append(key)
        self.charges[key] = self._times[key]
        found: T = self._values[key]
        return found

    def tensors(self) -> list[Tensor]:
        """All values made so far; nobody may write to them."""
        return [tensor for tensor, _ in self._versions]

    def asked(self) -> list[Tensor]:
        """The values that this learner asked for, whoever had them made."""
        return [x for key in self.charges for x in _tensors(self._values[key])]

    def written(self) -> bool:
        """Whether somebody wrote to a value in place after it was made."""
        return any(tensor._version != then for tensor, then in self._versions)


def _made(make: Callable[..., T], given: Outputs, args: tuple[Hashable, ...]) -> T:
    """What `make` makes; TypeError, with all put back, where it writes to a weight."""
    classifier = given.classifier
    weights = [] if classifier is None else list(classifier.parameters())
    known = [(x, x._version, x.detach().clone()) for x in weights]
    value = make(given, *args)
    changed = False
    for tensor, version, before in known:
        if tensor._version != version:
            tensor.copy_(before)
            changed = True
    if changed:
        raise TypeError("what once() calls wrote to the teacher's classifier")
    return value


def _stopwatch() -> Callable[[], float]:
    started = perf_counter()
    return lambda: perf_counter() - started


def _tensors(value: object) -> Iterator[Tensor]:
    """The tensors of a tensor, or of tuples of them; TypeError for anything else."""
    from torch import Tensor

    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _tensors(part)
    else:
        raise TypeError(
            "what once() makes must be a tensor or a tuple of tensors, "
            f"not {type(value).__name__}"
        )


@dataclass(frozen=True, slots=True)
class Outputs:
    """One model's answer to one batch.

    `logits` is (B, C), or (B, K) numbers of a regression, on the scale of the batch's
    targets. `features` maps each tapped name to its tensor, in forward
    order: (B, C, H, W) for a stage of a convnet, (B, D) for a dense layer.
    `classifier` is the model's own linear layer from "pooled" (B, D) to the logits,
    live, or None where there is none. `shared` is the engine's: what `once` made.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    classifier: nn.Linear | None = None
    shared: Shared = field(default=None, compare=False, repr=False)  # type: ignore[assignment]  # __post_init__ makes it

    def __post_init__(self) -> None:
        """With other tensors (`dataclasses.replace`) comes a store of its own."""
        known: Shared | None = self.shared
        if known is None or not known.belongs_to(self):
            object.__setattr__(self, "shared", Shared(self))
            self.shared.constant = known is not None and known.constant

    def once(self, make: Callable[..., T], *args: Hashable) -> T:
        """`make(self, *args)`, computed once per batch for all learners that ask.

        For what costs something and depends on a teacher's answer alone: a Gram matrix,
        an attention map. `make` is a function of a module, pure (no random numbers),
        that returns a tensor or a tuple of tensors and asks for no other value; it runs
        without gradients. `args` are plain values: numbers, text, functions, tuples of
        these. The result is shared: read it, never write to it. Raises TypeError on an
        answer that has a gradient, a student's.
        """
        import torch

        live = any(x.requires_grad for x in (self.logits, *self.features.values()))
        if live and not self.shared.constant:
            raise TypeError(
                "once() is for a teacher's answer; this one has a gradient (a "
                "student's?), so compute with its tensors directly"
            )
        if any(isinstance(x, (torch.Tensor, torch.nn.Module)) for x in args):
            raise TypeError("once() takes plain values beside the answer, no tensors")
        # Equal is not enough for the key: 2 == 2.0 == True, and the bits may differ.
        # A part of a sum has its own features only, so what there is belongs to it.
        key = (make, args, repr(args), tuple(self.features))
        given = dataclasses.replace(self, classifier=self.shared.classifier)
        with torch.no_grad():
            return self.shared.get(key, lambda: _made(make, given, args))


VIEWS = ("strong", "mixup", "cutmix", "same_class")
"""Further views of a batch that a strategy may ask for; all but the last of images."""


@dataclass(frozen=True, slots=True)
class ExtraView:
    """A batch seen in another way, and everyone's answers to it.

    `inputs` is (B, ...). In a mixture `share` (B,) of an image is its own and the
    rest that of the image at `partner` (B,) in the batch; a loss is mixed likewise.
    "strong" has the recipe's crop and mirror drawn anew, RandAugment and cutout, and
    shares of one.
    "same_class" has for each item another one of its class, drawn from the training
    set. Both sides are empty for a strategy that drives its own loop.
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
    `views` asks for, by name. `phase` names the phase of the training; `progress` and
    `epoch` count within it.
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
    phase: str = ""

    @property
    def student(self) -> Outputs:
        """The first student that learns: in the last phase the one that is measured."""
        if not self.students:
            raise TypeError("this batch has no student: see `phases` and `target`")
        return self.students[0]

    @property
    def teacher(self) -> Outputs:
        """The first teacher."""
        if not self.teachers:
            raise TypeError(
                "this batch has no teacher: the strategy has `teachers = 0`, its phase "
                "has none, or it drives its own loop"
            )
        return self.teachers[0]

    def heads(self) -> Iterator[tuple[Head, Batch]]:
        """Each head of a multi-task as a batch of its own; features are whole."""

        def part(outputs: Outputs, head: int) -> Outputs:
            views = list(self.task.split(outputs.logits, self.targets))
            return dataclasses.replace(outputs, logits=views[head].outputs)

        some = (self.students or self.teachers)[0]
        views = self.task.split(some.logits, self.targets)
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
    (128,), and `paths` maps the taps to module paths. `model` is a private copy to read
    (classifier weights, batch-norm statistics); when a pair is only being checked its
    tensors have no data. `build` makes another network of this kind, newly drawn.
    `targets` are those of the training set, (N,) classes in the order of `batch.index`;
    None while a pair is only being checked.
    """

    name: str
    shapes: Mapping[str, Shape]
    model: nn.Module
    paths: Mapping[str, str] = field(default_factory=dict)
    build: Callable[[], nn.Module] | None = None
    recipe: Recipe = field(default_factory=Recipe)
    targets: Tensor | None = None

    @property
    def stages(self) -> dict[str, Shape]:
        """The tapped stages, in forward order."""
        return {k: v for k, v in self.shapes.items() if k.startswith("stage")}

    def part(self, tap: str) -> nn.Module:
        """The module that a tap reads from: of "pooled", the classifier behind it."""
        return self.model.get_submodule(self.paths[tap].removesuffix(":input"))


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of a strategy's training; the last one is the recipe's own.

    It lasts `times` the recipe's epochs, or `epochs`, and has an optimiser of its own;
    the learning rate follows the recipe's schedule, stretched to it, or stays what the
    recipe starts with (`constant_lr`). In it `batch.students` are those numbered in
    `students` (all where None), which train with the adapters; `batch.teachers` are the
    teachers numbered in `teachers` (all where None), then the students numbered in
    `peers`, frozen as earlier phases left them.
    """

    name: str = ""
    epochs: int | None = None
    times: float = 1.0
    constant_lr: bool = False
    students: tuple[int, ...] | None = None
    teachers: tuple[int, ...] | None = None
    peers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for a length that cannot be."""
        if self.epochs is not None and not (
            isinstance(self.epochs, int) and self.epochs >= 0
        ):
            raise ValueError(f"epochs must be a whole number >= 0, not {self.epochs}")
        if not self.times > 0:
            raise ValueError(f"times must be > 0, not {self.times}")

    def length(self, recipe: Recipe) -> int:
        """Its epochs by this recipe."""
        if self.epochs is not None:
            return self.epochs
        return max(1, round(self.times * recipe.epochs))
