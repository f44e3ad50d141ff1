"""What the training loop steps: learners, and those that are stacked as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from kdbench.engine.faults import told_apart
from kdbench.engine.learner import Learner, Position
from kdbench.engine.lesson import Lesson
from kdbench.engine.membership import Member, member_of
from kdbench.engine.stack import Stack


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
    alike: dict[tuple[object, ...], list[Member]] = {}
    units: list[Unit] = []
    for learner in learners:
        member = member_of(learner)
        if member is None:
            units.append(learner)
        else:
            alike.setdefault((learner.run.students, learner.position), []).append(
                member
            )
    stacks: list[Stack] = []
    try:
        for members in alike.values():
            if len(members) > 1:
                with told_apart(members[0].learner.feed.device, "stacking students"):
                    stacks.append(Stack(members))
            else:
                units.append(members[0].learner)
        yield [*units, *stacks]
    finally:
        for stack in stacks:
            stack.part()
