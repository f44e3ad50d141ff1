"""Students of one kind trained as one: their layers computed together, for `stack`.

A product with the weights of all members takes the place of one for each, which pays
for small multi-layer perceptrons, whose products are quicker than asking for them. All
that makes a learner one stays its own: losses on its slice, adapters, optimiser, random
streams. Its parameters and buffers lie in the stack while that lasts, so that it is
evaluated and checkpointed as ever.

The stack's rows never meet: what is not finite in one member stays there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from kdbench.api import Outputs
from kdbench.engine.clock import Clock, Spent, spent
from kdbench.engine.family import Family, kin
from kdbench.engine.faults import raise_if_machine, reason_of, told_apart
from kdbench.engine.joint import Share, share_of, step_together
from kdbench.engine.learner import SPOILED, Learner, Position
from kdbench.engine.lesson import Lesson
from kdbench.engine.membership import Member
from kdbench.engine.stacked_layers import Linear, stacked_layer, stand_alone
from kdbench.engine.terms import total_of
from kdbench.settings import kept


class Stack:
    """Several learners, one step at a time."""

    def __init__(self, members: Sequence[Member]):
        self._members = members
        self._alone: list[Learner] = []
        self._shares: dict[int, Share] = {}
        first = members[0].learner
        self._device = first.feed.device
        self._clock = Clock(self._device)
        rough = first.recipe.precision == "bfloat16"
        for slot, member in enumerate(members):
            member.slot = slot
            member.learner.optimiser.zero_grad()  # of a step that it took alone
            member.learner.trace.source = self._hand_over
        self._families = _families(members)
        self._owed: dict[str, float] = {}
        self._layers = [
            stacked_layer([m.student.module.get_submodule(p) for m in members], rough)
            for p in members[0].chain.layers
        ]

    def part(self) -> None:
        """Give all members parameters and buffers of their own again."""
        self._hand_over()
        for member in self._members:
            member.learner.trace.source = None
            stand_alone(member.student.module)

    def _hand_over(self) -> None:
        """Give the traces what was added up for several, before they are read."""
        for family in self._families:
            family.hand_over()
        for part, time in self._owed.items():
            for member in self._members:
                member.learner.trace.spend(part, time / len(self._members))
        self._owed.clear()

    def _share(self, part: str, time: Spent, members: Sequence[Member]) -> None:
        """Charge what was done for all to each, in equal parts."""
        for name in (part, "own"):
            if isinstance(time, float) and len(members) == len(self._members):
                self._owed[name] = self._owed.get(name, 0.0) + time
            else:
                for member in members:
                    member.learner.trace.spend(name, time, 1 / len(members))

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

    def _step(self, lesson: Lesson, members: Sequence[Member]) -> None:
        places = self._forward(lesson, members)
        if places is None:
            for member in members:
                self._go_alone(member, lesson)
            return
        by_learner = {m.learner: m for m in members}
        taught = []
        for family in list(self._families):
            own = [by_learner[x] for x in family.learners if x in by_learner]
            together = None
            if len(own) == len(family.learners):
                together = self._taught_as_one(family, own, lesson, places)
            if together is None:  # somebody is gone, or it cannot be done so
                family.hand_over()
                self._families.remove(family)
                continue
            taught.append(together)
            for learner in family.learners:
                del by_learner[learner]
        for member in by_learner.values():
            alone = self._taught(member, lesson, places)
            if alone:
                taught.append(alone)
        for layer in self._layers:
            layer.commit()
        if taught:
            self._backward(places, taught)
            self._update(taught, lesson)

    def _forward(
        self, lesson: Lesson, members: Sequence[Member]
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
        self._share("student", self._clock.since(started), members)
        return places

    def _taught(
        self, member: Member, lesson: Lesson, places: Sequence[Tensor]
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
                terms.update(learner.terms(lesson.step, teachers, students, peers))
                total = total_of(terms)
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
            one = slice(member.slot, member.slot + 1)
            return _Taught([member], one, terms, _slices(leaves, own=True))
        return None

    def _taught_as_one(
        self,
        family: Family,
        members: Sequence[Member],
        lesson: Lesson,
        places: Sequence[Tensor],
    ) -> _Taught | None:
        """All members of a family; None where it has to be done one by one."""
        teachers = lesson.given(*family.learners)
        started = self._clock.now()
        first = members[0]
        where = torch.tensor([member.slot for member in members], device=self._device)
        leaves = {
            at: places[at][where].float().contiguous().requires_grad_()
            for at in {*first.taps.values(), len(places) - 1}
        }
        first.learner.seed(lesson.step)
        try:
            with kept():
                terms = family.terms(lesson.step, teachers, leaves, first.taps)
            total = total_of({name: value.sum() for name, value in terms.items()})
            middle = self._clock.now()
            torch.autograd.backward(total)
        except Exception as error:  # noqa: BLE001 - of any kind; alone it tells more
            raise_if_machine(error, self._device, first.learner.run.label)
            lesson.spoiled(*family.learners, charged=False)
            return None
        self._share("loss", spent(started, middle), members)
        self._share("backward", self._clock.since(middle), members)
        if lesson.spoiled(*family.learners):
            return None
        family.add(terms)
        return _Taught(members, where, {}, _slices(leaves))

    def _go_alone(self, member: Member, lesson: Lesson) -> None:
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
            for some in own:
                assert gradient is not None  # noqa: S101 - made above
                # rounded before it is added, as autograd does
                gradient[some.where] += some.gradients[at].to(gradient.dtype)
            if gradient is not None:
                gradient = self._layers[at - 1].backward(gradient)
        there = [member for some in taught for member in some.members]
        self._share("backward", self._clock.since(started), there)

    def _update(self, taught: Sequence[_Taught], lesson: Lesson) -> None:
        """Everyone's optimiser, by one call for those that can share it."""
        together: dict[float, list[Member]] = {}
        for some in taught:
            for member in some.members:
                if self._shared(member, some.depth) is None:
                    alone = partial(self._update_alone, member, some.depth, lesson)
                    _finish(member, some.terms, lesson, alone)
                else:
                    rate = member.learner.set_rate(lesson.step)
                    together.setdefault(rate, []).append(member)
        terms = {member.slot: t.terms for t in taught for member in t.members}
        for lr, members in together.items():
            started = self._clock.now()
            shares = [self._shares[member.slot] for member in members]
            for share in shares:
                share.take_up()
            step_together(shares, lr)
            self._share("optimiser", self._clock.since(started), members)
            for member in members:
                learner = member.learner
                more = None if learner.adapters is None else learner.optimiser.step
                _finish(member, terms[member.slot], lesson, more)

    def _shared(self, member: Member, depth: int) -> Share | None:
        """The member's share of a common update; None if it has to make its own.

        Its own is the first, which makes the optimiser's state, and any that leaves
        parameters out.
        """
        if depth < len(self._layers):
            return None
        if member.slot not in self._shares:
            known = [pair for layer in self._layers for pair in layer.of(member.slot)]
            parameters, gradients = zip(*known, strict=True)
            share = share_of(member.learner.optimiser, parameters, gradients)
            if share is None:
                return None
            self._shares[member.slot] = share
        return self._shares[member.slot]

    def _update_alone(self, member: Member, depth: int, lesson: Lesson) -> None:
        # layers behind the last place that it learns from have no gradient at all
        for layer in self._layers[:depth]:
            for parameter, gradient in layer.of(member.slot):
                if parameter.grad is not None:  # a loss used the live layer
                    gradient += parameter.grad
                parameter.grad = gradient
        member.learner.update(lesson.step)
        member.learner.optimiser.zero_grad()  # or they would be added in the next step


@dataclass
class _Taught:
    """Members after their loss: where they stand, gradients (k, B, D) by place.

    `terms` are those of one member; a family keeps its own.
    """

    members: Sequence[Member]
    where: Tensor | slice
    terms: dict[str, Tensor]
    gradients: dict[int, Tensor]

    @property
    def depth(self) -> int:
        """The last place that they learn from."""
        return max(self.gradients, default=0)


def _slices(leaves: Mapping[int, Tensor], own: bool = False) -> dict[int, Tensor]:
    """The gradients of leaves (k, B, D), or of one member's `own` (B, D)."""
    found = {at: x.grad for at, x in leaves.items() if x.grad is not None}
    return {at: x[None] for at, x in found.items()} if own else found


def _families(members: Sequence[Member]) -> list[Family]:
    """Those whose losses can be computed as one."""
    alike: dict[object, list[Learner]] = {}
    for member in members:
        key = kin(member.learner)
        if key is not None:
            alike.setdefault(key, []).append(member.learner)
    return [Family(learners) for learners in alike.values() if len(learners) > 1]


def _finish(
    member: Member,
    terms: Mapping[str, Tensor],
    lesson: Lesson,
    last: Callable[[], object] | None,
) -> None:
    """The last of the member's step, and what the trace is told."""
    learner = member.learner
    epoch, step = lesson.position
    if last is not None or terms:

        def finish() -> None:
            if last is not None:
                with learner.trace.timed("optimiser"):
                    last()
            for name, value in terms.items():
                learner.trace.add(name, value)

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
        with learner.trace.timed("own"), kept():
            act()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
        raise_if_machine(error, learner.feed.device, f"{learner.run.label}, stacked")
        return error
    return None
