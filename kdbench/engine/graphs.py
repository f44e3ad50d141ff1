"""CUDA graphs: a learner's forward, loss and backward captured once, then replayed.

A small student's step is hundreds of launches, and asking for them takes the program
longer than they take the GPU; a replay asks for all of them at once. Replayed is what
the GPU did, not what Python did: a step is captured only where Python would do the same
again, and that is watched in the steps before. Everywhere else steps stay plain. The
optimiser's step stays outside, as its learning rate changes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from kdbench.api import Batch, Outputs, Strategy
from kdbench.engine.augment import Mixed
from kdbench.engine.feed import Step
from kdbench.engine.teacher import Ask
from kdbench.engine.trace import GRAPH, Trace
from kdbench.engine.watching import python_state, watching

T = TypeVar("T")

Answers = Mapping[Ask, Outputs]
Terms = dict[str, Tensor]
Timed = Callable[[str], AbstractContextManager[Any]]

WARM_UP = 3
"""Plain steps before the capture, as torch asks for; they are the first real ones."""

WAITED = "called a synchronizing CUDA operation"

log = logging.getLogger(__name__)


class Trainee(Protocol):
    """Whose step is to be captured: what of a learner a graph needs."""

    strategy: Strategy
    modules: nn.ModuleList
    adapters: nn.Module | None
    optimiser: torch.optim.Optimizer
    trace: Trace
    taps: dict[int, frozenset[str]]
    """By teacher the features that the strategy asks for."""

    @property
    def sees(self) -> tuple[str, ...]: ...

    @property
    def asks(self) -> tuple[Ask, ...]: ...

    def seed(self, step: Step) -> None: ...

    def gradients(
        self, step: Step, teachers: Answers, timed: Timed, kind: type[Batch]
    ) -> Terms:
        """Forward, loss and backward, shown as `kind`; no parameter is changed."""


class Recorder(Protocol):
    """What a device does for graphs; tests have one that needs no GPU."""

    def apart(self, act: Callable[[], T]) -> tuple[T, bool]:
        """Do this on the graphs' stream; and whether the program waited for the GPU."""

    def capture(self, act: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        """What this returns, its tensors still empty, and what fills them anew."""

    def streams(self) -> object:
        """The state of torch's global random streams."""


class CudaGraphs:
    """The graphs of a group: one stream, and one pool of memory that they share.

    Sharing lets activations lie in the same place for all learners of the group, one
    after another. It is safe because nothing that a replay leaves (gradients, terms)
    is read after the next one begins: the optimiser's step and the trace, which copies,
    come between. All else that lasts (weights, buffers, optimiser state, the inputs'
    places) was allocated outside of a capture.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # a pool without graphs cannot be used again: an empty graph keeps it alive
        self._pool = torch.cuda.graph_pool_handle()
        self._keeper = torch.cuda.CUDAGraph()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is empty
            with torch.cuda.graph(self._keeper, self._pool, self._stream):
                pass

    def apart(self, act: Callable[[], T]) -> tuple[T, bool]:
        main = torch.cuda.current_stream(self._device)
        mode = torch.cuda.get_sync_debug_mode()
        self._stream.wait_stream(main)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                with torch.cuda.stream(self._stream):
                    result = act()
            finally:
                torch.cuda.set_sync_debug_mode(mode)
                main.wait_stream(self._stream)
        waits = [WAITED in str(warning.message) for warning in said]
        for warning, is_ours in zip(said, waits, strict=True):
            if not is_ours:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
        return result, any(waits)

    def capture(self, act: Callable[[], T]) -> tuple[T, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, self._pool, self._stream):
                result = act()
        except BaseException:
            # a capture that breaks off may leave the generator believing in it
            generator = self._generator()
            generator.graphsafe_set_state(generator.clone_state())
            raise
        return result, graph.replay

    def streams(self) -> object:
        states = (torch.default_generator.get_state(), self._generator().get_state())
        return [state.tolist() for state in states]

    def _generator(self) -> torch.Generator:
        known: Sequence[torch.Generator] = torch.cuda.default_generators
        return known[self._device.index or 0]


def recorder_for(device: torch.device) -> Recorder | None:
    """What makes the graphs of a group on this device; None where there are none."""
    return CudaGraphs(device) if device.type == "cuda" else None


class GraphedStep:
    """A learner's steps: plain, watched, captured and replayed.

    `obstacle` says why they are plain for good, once that is known.
    """

    def __init__(self, trainee: Trainee, recorder: Recorder):
        self._trainee = trainee
        self._recorder = recorder
        self._layout: object = None
        self._warmed = 0
        self._captured: _Captured | None = None
        self.obstacle = ""
        strategy = trainee.strategy
        if strategy.at(0.0).values() != strategy.at(1.0).values():
            self._give_up("a hyper-parameter changes over the training")

    @property
    def is_captured(self) -> bool:
        return self._captured is not None

    def gradients(self, step: Step, teachers: Answers) -> Terms:
        """One step's gradients in the parameters' `grad`; the terms of its loss.

        Both may be overwritten by any learner's next step.
        """
        if self.obstacle:
            return self._plain(step, teachers)
        given = given_to(self._trainee, step, teachers)
        layout = [(k, x.shape, x.stride(), x.dtype) for k, x in given.items()]
        if self._captured is None and layout != self._layout:
            self._layout, self._warmed = layout, 0
        if layout != self._layout:  # an epoch's last batch may be smaller
            return self._plain(step, teachers)
        if self._captured is None and self._warmed < WARM_UP:
            self._warmed += 1
            return self._watched(step, teachers)
        if self._captured is None:
            self._captured = self._capture(step, teachers, given)
        if self._captured is None:
            return self._plain(step, teachers)
        with self._trainee.trace.timed(GRAPH):
            return self._captured.replayed(given)

    def _plain(self, step: Step, teachers: Answers, kind: type[Batch] = Batch) -> Terms:
        trainee = self._trainee
        trainee.seed(step)
        return trainee.gradients(step, teachers, trainee.trace.timed, kind)

    def _watched(self, step: Step, teachers: Answers) -> Terms:
        """A plain step; whatever a replay could not repeat is noticed.

        Not in the first one: it may wait, or make what later ones find ready.
        """
        trainee = self._trainee
        kind, read = watching()
        trainee.seed(step)
        kept, drawn = self._python_state(), self._recorder.streams()
        terms, waited = self._recorder.apart(
            lambda: trainee.gradients(step, teachers, trainee.trace.timed, kind)
        )
        if self._warmed == 1:
            return terms
        if read:
            self._give_up(f"the loss reads batch.{min(read)}")
        elif self._recorder.streams() != drawn:
            self._give_up("it draws random numbers")
        elif waited:
            self._give_up("it waits for the GPU")
        elif self._python_state() != kept:
            self._give_up("it keeps something of its own from step to step")
        return terms

    def _capture(
        self, step: Step, teachers: Answers, given: Mapping[str, Tensor]
    ) -> _Captured | None:
        """The graph of this step, which a capture does not yet carry out."""
        trainee = self._trainee
        places = {name: _like(tensor) for name, tensor in given.items()}
        versions = [place._version for place in places.values()]
        trainee.seed(step)

        def act() -> Terms:
            fixed = _rebuilt(trainee, step, teachers, places)
            return trainee.gradients(*fixed, _untimed, Batch)

        try:
            terms, replay = self._recorder.capture(act)
        except Exception as error:  # noqa: BLE001 - of any kind; plain steps tell more
            self._give_up(f"the capture failed: {error}")
            return None
        if versions != [place._version for place in places.values()]:
            self._give_up("it writes to what it is given")
            return None
        terms = {name: value.detach() for name, value in terms.items()}
        return _Captured(places, terms, replay, _gradients_of(trainee))

    def _python_state(self) -> list[object]:
        trainee = self._trainee
        parts = (trainee.modules, trainee.adapters)
        return python_state(trainee.strategy, *(x for x in parts if x is not None))

    def _give_up(self, why: str) -> None:
        self.obstacle = why
        log.debug("%s: plain steps: %s", self._trainee.strategy.name, why)


@dataclass(frozen=True)
class _Captured:
    """A graph, and where it reads and writes."""

    places: Mapping[str, Tensor]
    terms: Terms
    replay: Callable[[], None]
    gradients: Sequence[tuple[nn.Parameter, Tensor | None]]

    def replayed(self, given: Mapping[str, Tensor]) -> Terms:
        for name, tensor in given.items():
            self.places[name].copy_(tensor)
        self.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient  # a plain step in between has put others there
        return self.terms


def _untimed(_part: str) -> AbstractContextManager[None]:
    """Within a capture nothing takes time."""
    return nullcontext()


def given_to(trainee: Trainee, step: Step, teachers: Answers) -> dict[str, Tensor]:
    """Every tensor that the learner's step reads, by name.

    Of the group's views and features those that it asks for: the others depend on who
    else is there.
    """
    found = {"inputs": step.inputs, "targets": step.targets, "index": step.index}
    for name in trainee.sees[1:]:
        view = step.views[name]
        found |= {
            f"{name} inputs": view.inputs,
            f"{name} partner": view.partner,
            f"{name} share": view.share,
        }
    for ask in trainee.asks:
        found[f"{ask} logits"] = teachers[ask].logits
        for tap, feature in teachers[ask].features.items():
            if tap in trainee.taps[ask[1]]:
                found[f"{ask} {tap}"] = feature
    return found


def _rebuilt(
    trainee: Trainee, step: Step, teachers: Answers, places: Mapping[str, Tensor]
) -> tuple[Step, dict[Ask, Outputs]]:
    """The step and its teachers' answers, made of the tensors at these places."""
    fixed = replace(
        step,
        inputs=places["inputs"],
        targets=places["targets"],
        index=places["index"],
        views={
            name: Mixed(
                places[f"{name} inputs"],
                places[f"{name} partner"],
                places[f"{name} share"],
            )
            for name in trainee.sees[1:]
        },
    )
    answers = {
        ask: Outputs(
            places[f"{ask} logits"],
            MappingProxyType(
                {
                    tap: places[f"{ask} {tap}"]
                    for tap in teachers[ask].features
                    if tap in trainee.taps[ask[1]]
                }
            ),
            teachers[ask].classifier,
        )
        for ask in trainee.asks
    }
    return fixed, answers


def _like(tensor: Tensor) -> Tensor:
    """A copy that lies in memory as the tensor does; a replay's copies fill it."""
    place = torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )
    return place.copy_(tensor)


def _gradients_of(trainee: Trainee) -> list[tuple[nn.Parameter, Tensor | None]]:
    groups = trainee.optimiser.param_groups
    return [(p, p.grad) for group in groups for p in group["params"]]
