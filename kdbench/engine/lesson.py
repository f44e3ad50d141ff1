"""A lesson: one batch, its views and the teachers' answers, made once for all learners.

Whoever asks first makes them; each learner is charged as if it were alone, and by its
share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from torch import Tensor

from kdbench.api import Outputs, Strategy
from kdbench.engine.clock import Clock, Spent
from kdbench.engine.feed import Feed
from kdbench.engine.teacher import PASS, Ask, Charge, TeacherStage
from kdbench.engine.trace import Trace


class Attendant(Protocol):
    """Who is given a lesson: the views it sees, and which teachers it asks about which.

    "" is the batch as it is.
    """

    strategy: Strategy
    trace: Trace
    uses: tuple[int, ...]

    def __hash__(self) -> int: ...

    @property
    def sees(self) -> tuple[str, ...]: ...

    @property
    def asks(self) -> tuple[Ask, ...]: ...


@dataclass(frozen=True)
class _Bill:
    """What learners pay: a part of the cost, and the thing that all its users share.

    `shared` is false for what was made in an earlier step, for others.
    """

    traces: Sequence[Trace]
    part: str
    thing: Hashable
    time: Spent
    shared: bool = True


class Lesson:
    """One step of a group."""

    def __init__(self, feed: Feed, teachers: TeacherStage, epoch: int, step: int):
        self.position = (epoch, step)
        self._feed = feed
        self._teachers = teachers
        self._clock = Clock(feed.device)
        self._attended: set[Attendant] = set()
        self._bills: list[_Bill] = []
        self._answers: Mapping[Ask, Outputs] = {}
        self._versions: list[int] = []
        self._begin()

    def _begin(self) -> None:
        self.step = self._feed.at(*self.position)
        self._teachers.begin(self.step)

    def given(self, *learners: Attendant) -> dict[Ask, Outputs]:
        """The teachers' answers for a learner, or for several who see and ask the same.

        The views that it sees are in `step` then.
        """
        learner = learners[0]
        taps = learner.strategy.taps
        self._feed.add_views(self.step, learner.sees[1:])
        answers = self._teachers.answers(learner.asks, taps)
        new = [one for one in learners if one not in self._attended]
        if new:
            self._attended.update(new)
            traces = [one.trace for one in new]
            for view in learner.sees:
                taken = self.step.seconds[view]
                self._bills.append(_Bill(traces, "data", view, taken))
            owed: dict[Charge, list[Trace]] = {}
            for one in new:
                for charge in self._teachers.charges(one, one.asks, taps):
                    if _is_paid(one, charge):
                        continue
                    owed.setdefault(charge, []).append(one.trace)
                    one.trace.cost["teacher_forwards"] += charge.batches
            for charge, payers in owed.items():
                bill = charge.part, charge.time, charge.shared
                self._bills.append(_Bill(payers, "teacher", *bill))
        for outputs in answers.values():
            outputs.shared.begin()
            outputs.shared.stopwatch = self._stopwatch
        self._answers = answers
        self._versions = self._counted()
        return answers

    def _stopwatch(self) -> Callable[[], Spent]:
        return partial(self._clock.since, self._clock.now())

    def spoiled(self, *learners: Attendant, charged: bool = True) -> bool:
        """End the part of one learner, or of several as one: whether they wrote to
        what all share.

        Then the lesson is made anew. What they had made of an answer for all (`once`)
        is the teachers' work, not their own; they are `charged` unless they try again.
        """
        for ask, outputs in self._answers.items() if charged else ():
            for key, time in outputs.shared.charges.items():
                traces = [learner.trace for learner in learners]
                self._bills.append(_Bill(traces, "teacher", (ask, key), time))
                if key in outputs.shared.made:
                    for trace in traces:
                        for part in ("own", "loss"):
                            trace.spend(part, time, -1 / len(learners))
        spoiled = self._counted() != self._versions or any(
            outputs.shared.written() for outputs in self._answers.values()
        )
        self._answers = {}
        if spoiled:
            self._begin()
        return spoiled

    def _counted(self) -> list[int]:
        """The counts that torch keeps of in-place writes."""
        shared: Sequence[Tensor] = [*self.step.tensors, *self._teachers.shared()]
        return [tensor._version for tensor in shared]

    def charge(self) -> None:
        """Charge all who attended, in full and by their share."""
        users: Counter[tuple[str, Hashable]] = Counter()
        for bill in self._bills:
            users[bill.part, bill.thing] += len(bill.traces)
        for bill in self._bills:
            for trace in bill.traces:
                if bill.shared:
                    trace.charge(bill.part, bill.time, users[bill.part, bill.thing])
                else:
                    trace.spend(bill.part, bill.time)


def _is_paid(learner: Attendant, charge: Charge) -> bool:
    """Whether it is a pass over the training set that the run, before a stop, has paid.

    Otherwise it pays now. Teachers are told apart by their place among its own.
    """
    kind, teacher = charge.part
    if kind != PASS:
        return False
    place = learner.uses.index(teacher)
    if place in learner.trace.paid:
        return True
    learner.trace.paid.append(place)
    return False
