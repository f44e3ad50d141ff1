"""A training in which every step is looked at: what the strategy was shown and did."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kdbench.api import Batch, Outputs, Strategy
from kdbench.conformance.variants import copied, named, parts
from kdbench.engine.feed import Step
from kdbench.engine.learner import Learner
from kdbench.engine.solo import Solo
from kdbench.engine.teacher import Ask
from kdbench.job import Job
from kdbench.perform import Work, attempt
from kdbench.plugins import Host
from kdbench.randomness import global_generators
from kdbench.records import Run
from kdbench.settings import put_back, settings

if TYPE_CHECKING:
    from kdbench.conformance.trainings import Trial

Answers = Mapping[str, tuple[Outputs, ...]]


@dataclass
class Look:
    """One step of a strategy that the engine trains.

    `batch` has copies of what it was shown, adapters included. `reached` names the
    leaves that the sum of its terms sends a gradient to: "student 0: stage1.0.weight",
    "adapters: weight", "a tensor (16, 4) of its own".
    """

    phase: str
    epoch: int
    batch: Batch
    terms: dict[str, Tensor]
    reached: frozenset[str]


@dataclass
class Watch:
    """A watched training.

    `looks` are the first and the latest step of each phase, in order; there are none of
    a strategy that drives its own loop. `learner` is the engine's, None where it could
    not be built. `held` names the parameters in its optimisers, `moved` those that got
    a gradient other than zero in some step. `written` names tensors of a batch that the
    strategy wrote to, `drawn` global generators that it used, `changed` settings of the
    process, `modes` students' modules in eval mode in a forward pass to be learned
    from; each with where that was seen first. `live_bytes` are those of all tensors of
    the process at the end of each epoch.
    """

    looks: list[Look] = field(default_factory=list)
    learner: Learner | Solo | None = None
    trial: Trial = None  # type: ignore[assignment] # set when the training ended
    held: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    written: dict[str, str] = field(default_factory=dict)
    drawn: dict[str, str] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)
    modes: dict[str, str] = field(default_factory=dict)
    live_bytes: list[int] = field(default_factory=list)

    @property
    def failure(self) -> str | None:
        return self.trial.failed

    @property
    def last(self) -> Look:
        """The latest step of all."""
        return self.looks[-1]

    def keep(self, look: Look) -> None:
        """Keep it beside the phase's first, in place of its latest so far."""
        same = [k for k, known in enumerate(self.looks) if known.phase == look.phase]
        if len(same) > 1:
            self.looks[same[1]] = look
        else:
            self.looks.append(look)


class WatchingWork(Work):
    """A job in which the strategy of this name is watched."""

    def __init__(self, job: Job, host: Host, watch: Watch, name: str):
        super().__init__(job, host, lambda _: None)
        self.learner, self.solo_learner = WatchedLearner, WatchedSolo
        self._watch = watch
        self._name = name

    def perform(self) -> None:
        """Train to the end; what fails is on record as in any training."""
        attempt(self, lambda: False)

    def fresh(self, run: Run) -> Learner:
        before = global_generators()
        built = super().fresh(run)
        if isinstance(built, WatchedLearner) and run.strategy == self._name:
            built.begin(self._watch)
            # torch's is the engine's own stream then
            drawn = [k for k, x in global_generators().items() if x != before[k]]
            where = "when its adapters were built"
            _note(self._watch.drawn, [k for k in drawn if k != "torch"], where)
        return built

    def alone(self, run: Run) -> Solo:
        built = super().alone(run)
        if isinstance(built, WatchedSolo):
            built.begin(self._watch)
        return built


class _Capture:
    """Stands in for a strategy, to be shown its batch."""

    batch: Batch

    def at(self, progress: float) -> _Capture:  # noqa: ARG002 - as a strategy has it
        return self

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        self.batch = batch
        return {}


class WatchedLearner(Learner):
    """The engine's learner, looked at; as usual until `begin`."""

    watch: Watch | None = None

    def begin(self, watch: Watch) -> None:
        self.watch = watch
        watch.learner = self
        _watch_modes(watch, self.modules, lambda: f"in epoch {self.position[0] + 1}")

    def terms(  # the engine's, with a look before and after
        self,
        step: Step,
        teachers: Mapping[Ask, Outputs],
        students: Answers,
        peers: Answers,
        kind: type[Batch] = Batch,
        strategy: Strategy | None = None,
    ) -> dict[str, Tensor]:
        if self.watch is None:
            return super().terms(step, teachers, students, peers, kind, strategy)
        capture: Any = _Capture()
        super().terms(step, teachers, students, peers, strategy=capture)
        batch: Batch = capture.batch
        seen = copied(batch)
        tensors = named(batch)
        versions = {name: tensor._version for name, tensor in tensors.items()}
        before_it = named(seen)
        before, drawn = settings(), global_generators()
        terms = super().terms(step, teachers, students, peers, kind, strategy)
        where = f"in epoch {step.epoch + 1}, step {step.step + 1}"
        _note(
            self.watch.written,
            [
                name
                for name, x in tensors.items()
                if x._version != versions[name] or not _same(x, before_it[name])
            ],
            where,
        )
        after = global_generators()
        if _drops_out(self.adapters):  # from a stream that the engine gives each step
            after["torch"] = drawn["torch"]
        _note(self.watch.drawn, [k for k in drawn if drawn[k] != after[k]], where)
        _note(self.watch.changed, put_back(before), where)
        names = _names(self.modules, self.adapters)
        reached = frozenset(
            names.get(id(leaf), f"a tensor {tuple(leaf.shape)} of its own")
            for leaf in _leaves(terms.values() if isinstance(terms, dict) else ())
        )
        self.watch.keep(
            Look(self._phase.name, step.epoch, seen, _plain(terms), reached)
        )
        return terms

    def update(self, step: Step) -> None:
        if self.watch is not None:
            _note_moved(self.watch, [self.optimiser], self.modules, self.adapters)
        super().update(step)

    def end_epoch(self) -> float:
        value = super().end_epoch()
        if self.watch is not None:
            self.watch.live_bytes.append(live_bytes())
        return value


class WatchedSolo(Solo):
    """The engine's context of a strategy with its own loop, looked at."""

    watch: Watch

    def begin(self, watch: Watch) -> None:
        self.watch = watch
        watch.learner = self
        _watch_modes(watch, self.modules, lambda: f"in epoch {self._epoch + 1}")

    def optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        made = super().optimiser(parameters)
        made.register_step_pre_hook(
            lambda optimiser, *_: _note_moved(
                self.watch, [optimiser], self.modules, self.adapters
            )
        )
        return made

    def batches(self) -> Iterator[Batch]:
        for number, batch in enumerate(super().batches()):
            tensors = named(batch)
            versions = {name: tensor._version for name, tensor in tensors.items()}
            before, drawn = settings(), global_generators()
            yield batch
            where = f"in epoch {self._epoch + 1}, step {number + 1}"
            written = [k for k, x in tensors.items() if x._version != versions[k]]
            _note(self.watch.written, written, where)
            after = global_generators()
            own = [k for k in drawn if k != "torch" and drawn[k] != after[k]]
            _note(self.watch.drawn, own, where)
            _note(self.watch.changed, put_back(before), where)

    def _end_epoch(self) -> None:
        super()._end_epoch()
        self.watch.live_bytes.append(live_bytes())


@contextmanager
def passed_over() -> Iterator[None]:
    """Collections, with which each job ends, do not walk through what was before.

    Half the time of a job. What the process itself had frozen stays so.
    """
    frozen = _has_frozen()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()


@cache
def _has_frozen() -> bool:
    """Whether the process had frozen anything before we did: to count takes long."""
    return gc.get_freeze_count() > 0


def live_bytes() -> int:
    """Bytes of the tensors that Python knows of, each storage once."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), Tensor) and thing.layout is torch.strided:
            storage = thing.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())


def _watch_modes(watch: Watch, modules: nn.ModuleList, where: Any) -> None:
    """Note students in eval mode where a forward pass is to be learned from."""

    def look(module: nn.Module, _inputs: object) -> None:
        if torch.is_grad_enabled():
            still = [
                name or "the student"
                for name, x in module.named_modules()
                if not x.training
            ]
            _note(watch.modes, still, where())

    for module in modules:
        module.register_forward_pre_hook(look)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether they are equal, NaN being equal to NaN."""
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _note(found: dict[str, str], names: Iterable[str], where: str) -> None:
    for name in names:
        found.setdefault(name, where)


def _note_moved(
    watch: Watch,
    optimisers: Sequence[torch.optim.Optimizer],
    students: nn.ModuleList,
    adapters: nn.Module | None,
) -> None:
    names = _names(students, adapters)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                name = names.get(id(parameter), f"a tensor {tuple(parameter.shape)}")
                watch.held.add(name)
                if parameter.grad is not None and parameter.grad.count_nonzero():
                    watch.moved.add(name)


def _drops_out(adapters: nn.Module | None) -> bool:
    """Whether modules of torch's draw in them, which take no generator."""
    kinds = (nn.modules.dropout._DropoutNd, nn.MultiheadAttention, nn.RNNBase)
    return adapters is not None and any(
        isinstance(x, kinds) for x in adapters.modules()
    )


def _names(students: nn.ModuleList, adapters: nn.Module | None) -> dict[int, str]:
    """What the parameters are called, by identity."""
    names = {id(p): f"adapters: {name}" for name, p in parts(adapters)}
    for k, student in enumerate(students):
        names |= {id(p): f"student {k}: {name}" for name, p in parts(student)}
    return names


def _leaves(terms: Iterable[object]) -> list[Tensor]:
    """The leaves that gradients of these go to."""
    found, seen = [], set()
    open_ = [x.grad_fn for x in terms if isinstance(x, Tensor)]
    while open_:
        node: Any = open_.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        open_ += [following for following, _ in node.next_functions]
    return found


def _plain(terms: object) -> dict[str, Tensor]:
    """The terms without their graph, as far as they are such."""
    if not isinstance(terms, dict):
        return {}
    return {k: v.detach().clone() for k, v in terms.items() if isinstance(v, Tensor)}
