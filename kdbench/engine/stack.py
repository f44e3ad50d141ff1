"""Students of one kind trained as one: their layers computed together, for `stack`.

A product with the weights of all members takes the place of one for each, which pays
for small multi-layer perceptrons, whose products are quicker than asking for them. All
that makes a learner one stays its own: losses on its slice, adapters, optimiser, random
streams. Its parameters and buffers lie in the stack while that lasts, so that it is
evaluated and checkpointed as ever.

The stack's rows never meet: what is not finite in one member stays there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from kdbench.api import Outputs
from kdbench.engine.clock import Clock, Spent
from kdbench.engine.faults import raise_if_machine, reason_of, told_apart
from kdbench.engine.joint import Share, share_of, step_together
from kdbench.engine.learner import SPOILED, Learner, Position
from kdbench.engine.lesson import Lesson
from kdbench.engine.stacked_layers import Linear, stacked_layer, stand_alone
from kdbench.models.chain import Chain, NoChainError, chain_of
from kdbench.models.taps import TappedModel


class Unit(Protocol):
    """What the training loop steps: a learner, or several as one."""

    def due(self, position: Position) -> bool: ...

    def step(self, lesson: Lesson) -> None: ...


@contextmanager
def united(learners: Sequence[Learner]) -> Iterator[list[Unit]]:
    """The learners, those that can be stacked as one, for an epoch.

    Stacked are those of one model at one position, if their recipe says so; they stand
    alone again afterwards.
    """
    alike: dict[tuple[object, ...], list[_Member]] = {}
    units: list[Unit] = []
    for learner in learners:
        member = _member(learner)
        if member is None:
            units.append(learner)
        else:
            alike.setdefault((learner.run.students, learner.position), []).append(
                member
            )
    stacks = []
    for members in alike.values():
        if len(members) > 1:
            with told_apart(members[0].learner.feed.device, "stacking students"):
                stacks.append(Stack(members))
        else:
            units.append(members[0].learner)
    try:
        yield [*units, *stacks]
    finally:
        for stack in stacks:
            stack.part()


@dataclass
class _Member:
    """A learner that can be stacked, and where in the chain its taps read."""

    learner: Learner
    student: TappedModel
    chain: Chain
    taps: dict[str, int]
    slot: int = 0

    def leaves(self, places: Sequence[Tensor]) -> dict[int, Tensor]:
        """Its copies (B, D) in float32 of what it reads, by place."""
        leaves = {}
        for at in {*self.taps.values(), len(places) - 1}:
            mine = places[at][self.slot].to(torch.float32, copy=True)
            leaves[at] = mine.contiguous().requires_grad_()
        return leaves

    def outputs(self, leaves: Mapping[int, Tensor]) -> Outputs:
        """Its answer, as its own student would give it."""
        features = {tap: leaves[at] for tap, at in self.taps.items()}
        logits = leaves[max(leaves)]
        return Outputs(logits, MappingProxyType(features), self.student.classifier)


def _member(learner: Learner) -> _Member | None:
    """The learner as a member of a stack, or None where it has to go alone."""
    student = learner.sole
    if not learner.recipe.stack or learner.failure is not None or student is None:
        return None
    parts = list(student.module.modules())
    hooks = sum(len(x._forward_hooks) + len(x._forward_pre_hooks) for x in parts)
    if hooks > len(student.paths):  # somebody else watches the layers
        return None
    if not all(p.requires_grad for p in student.module.parameters()):
        return None
    try:
        chain = chain_of(student.module, learner.feed.sample(2))
    except NoChainError:
        return None
    taps = {tap: chain.place_of(path) for tap, path in student.paths.items()}
    found = {tap: at for tap, at in taps.items() if at}
    if len(found) < len(taps):
        return None
    return _Member(learner, student, chain, found)


class Stack:
    """Several learners, one step at a time."""

    def __init__(self, members: Sequence[_Member]):
        self._members = members
        self._alone: list[Learner] = []
        self._shares: dict[int, Share] = {}
        first = members[0].learner
        self._device = first.feed.device
        self._clock = Clock(self._device)
        rough = first.recipe.precision == "bfloat16"
        for slot, member in enumerate(members):
            member.slot = slot
        self._layers = [
            stacked_layer([m.student.module.get_submodule(p) for m in members], rough)
            for p in members[0].chain.layers
        ]

    def part(self) -> None:
        """Give all members parameters and buffers of their own again."""
        for member in self._members:
            stand_alone(member.student.module)

    def due(self, position: Position) -> bool:
        """Whether this step is still to do."""
        return any(m.learner.due(position) for m in self._members)

    def step(self, lesson: Lesson) -> None:
        """One optimisation step of every member that has not failed.

        One whose loss raises takes this step and the epoch's others alone: it may need
        what only a student of its own can give. If it raises there too, it has failed.
        """
        alone = [x for x in self._alone if x.failure is None]
        well = [m for m in self._members if m.learner.failure is None]
        there = [m for m in well if m.learner not in alone]
        try:
            with told_apart(self._device, "stacked students"):
                if there:
                    self._step(lesson, there)
        except BaseException:  # a fault of the machine: some are in the middle of it
            for member in there:
                member.learner.whole = False
            raise
        for learner in alone:
            learner.step(lesson)

    def _step(self, lesson: Lesson, members: Sequence[_Member]) -> None:
        places = self._forward(lesson, members)
        if places is None:
            for member in members:
                self._go_alone(member, lesson)
            return
        taught = [t for m in members if (t := self._taught(m, lesson, places))]
        for layer in self._layers:
            layer.commit()
        if taught:
            self._backward(places, taught)
            self._update(taught, lesson)

    def _forward(
        self, lesson: Lesson, members: Sequence[_Member]
    ) -> list[Tensor] | None:
        """What stands at each place of the chain, (K, B, D); None where that fails."""
        started = self._clock.now()
        # a copy: whoever writes to the inputs in its loss must not reach the others
        place = lesson.step.inputs.flatten(1).clone()
        if not isinstance(self._layers[0], Linear):
            place = place.expand(len(self._members), -1, -1)
        places = [place]
        try:
            for layer in self._layers:
                places.append(layer.forward(places[-1]))
        except (RuntimeError, ValueError) as error:  # a batch of one, with batch norm
            raise_if_machine(error, self._device, "stacked students")
            return None
        _share("student", self._clock.since(started), members)
        return places

    def _taught(
        self, member: _Member, lesson: Lesson, places: Sequence[Tensor]
    ) -> _Taught | None:
        """The member's terms and its slices' gradients; None where it stops here."""
        learner = member.learner
        teachers = lesson.given(learner)
        leaves = member.leaves(places)
        terms: dict[str, Tensor] = {}

        def learn() -> None:
            learner.seed(lesson.step)
            own = member.outputs(leaves)
            students = {view: () if view else (own,) for view in learner.sees}
            peers: dict[str, tuple[Outputs, ...]] = dict.fromkeys(learner.sees, ())
            with learner.trace.timed("loss"):
                found, total = learner.loss(lesson.step, teachers, students, peers)
                terms.update(found)
            with learner.trace.timed("backward"):
                for group in learner.optimiser.param_groups:
                    for parameter in group["params"]:  # zero_grad() asks for more
                        parameter.grad = None
                torch.autograd.backward(total)

        error = _attempt(learner, learn)
        if lesson.spoiled(learner):
            learner.failure = SPOILED
        elif error is not None:
            self._go_alone(member, lesson)
        else:
            slices = {at: x.grad for at, x in leaves.items() if x.grad is not None}
            return _Taught(member, terms, slices)
        return None

    def _go_alone(self, member: _Member, lesson: Lesson) -> None:
        """Take this step, and the epoch's others, outside the stack."""
        stand_alone(member.student.module)
        self._alone.append(member.learner)
        member.learner.step(lesson)

    def _backward(self, places: Sequence[Tensor], taught: Sequence[_Taught]) -> None:
        """The gradients of all parameters, from those of the members' slices."""
        started = self._clock.now()
        gradient: Tensor | None = None
        for at in range(len(self._layers), 0, -1):
            own = [t for t in taught if at in t.gradients]
            if own and gradient is None:
                gradient = torch.zeros_like(places[at])
            for one in own:
                assert gradient is not None  # noqa: S101 - made above
                # rounded before it is added, as autograd does
                gradient[one.member.slot] += one.gradients[at].to(gradient.dtype)
            if gradient is not None:
                gradient = self._layers[at - 1].backward(gradient)
        _share("backward", self._clock.since(started), [t.member for t in taught])

    def _update(self, taught: Sequence[_Taught], lesson: Lesson) -> None:
        """Everyone's optimiser, by one call for those that can share it."""
        together: dict[float, list[_Taught]] = {}
        for one in taught:
            learner = one.member.learner
            if self._shared(one) is None:
                _finish(one, lesson, partial(self._update_alone, one, lesson))
            else:
                together.setdefault(learner.set_rate(lesson.step), []).append(one)
        for lr, several in together.items():
            started = self._clock.now()
            shares = [x for one in several if (x := self._shared(one))]
            for share in shares:
                share.take_up()
            step_together(shares, lr)
            _share("optimiser", self._clock.since(started), [t.member for t in several])
            for one in several:
                learner = one.member.learner
                has_more = learner.adapters is not None
                _finish(one, lesson, learner.optimiser.step if has_more else None)

    def _shared(self, one: _Taught) -> Share | None:
        """The member's share of a common update; None if it has to make its own.

        Its own is the first, which makes the optimiser's state, and any that leaves
        parameters out.
        """
        slot, learner = one.member.slot, one.member.learner
        if max(one.gradients, default=0) < len(self._layers):
            return None
        if slot not in self._shares:
            known = [pair for layer in self._layers for pair in layer.of(slot)]
            parameters, gradients = zip(*known, strict=True)
            share = share_of(learner.optimiser, parameters, gradients)
            if share is None:
                return None
            self._shares[slot] = share
        return self._shares[slot]

    def _update_alone(self, one: _Taught, lesson: Lesson) -> None:
        # layers behind the last place that it learns from have no gradient at all
        for layer in self._layers[: max(one.gradients, default=0)]:
            for parameter, gradient in layer.of(one.member.slot):
                if parameter.grad is not None:  # a loss used the live layer
                    gradient += parameter.grad
                parameter.grad = gradient
        one.member.learner.update(lesson.step)


@dataclass
class _Taught:
    """A member after its loss: the terms, and gradients (B, D) by place."""

    member: _Member
    terms: dict[str, Tensor]
    gradients: dict[int, Tensor]


def _finish(one: _Taught, lesson: Lesson, last: Callable[[], object] | None) -> None:
    """The last of the member's step, and what the trace is told."""
    learner = one.member.learner

    def finish() -> None:
        if last is not None:
            with learner.trace.timed("optimiser"):
                last()
        for name, value in one.terms.items():
            learner.trace.add(name, value)

    epoch, step = lesson.position
    error = _attempt(learner, finish)
    if error is not None:
        where = f"epoch {epoch + 1}, step {step + 1}"
        learner.failure = f"{reason_of(error)} in {where}"
    learner.position = (epoch, step + 1)


def _attempt(learner: Learner, act: Callable[[], None]) -> BaseException | None:
    """Do this in the learner's time; what it raises is returned.

    Faults of the machine are raised, as they would fail every learner.
    """
    try:
        with learner.trace.timed("own"):
            act()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
        raise_if_machine(error, learner.feed.device, f"{learner.run.label}, stacked")
        return error
    return None


def _share(part: str, time: Spent, members: Sequence[_Member]) -> None:
    """Charge what was done for all to each, in equal parts."""
    for member in members:
        for name in (part, "own"):
            member.learner.trace.spend(name, time, 1 / len(members))
