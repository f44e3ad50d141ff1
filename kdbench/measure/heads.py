"""A measure of each head: named after it, or "" where there is only one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

from torch import Tensor

from kdbench.api import Finished
from kdbench.tasks import Task, View

T = TypeVar("T")
Kind = Literal["classification", "regression"]

CLASSES = ("classification", "multi-task")
NUMBERS = ("regression", "multi-task")
"""The tasks that have heads of each kind."""


def views(task: Task, kind: Kind, outputs: Tensor, targets: Tensor) -> list[View]:
    """The heads of this kind, each with its part of both."""
    found = task.split(outputs, targets)
    return [view for view in found if view.head.task.kind == kind]


def by_head(
    finished: Finished, kind: Kind, compute: Callable[[Tensor, Tensor], T]
) -> dict[str, T]:
    """Head -> `compute(outputs, targets)` on the test set."""
    found = views(finished.task, kind, finished.logits, finished.targets)
    return {view.head.name: compute(view.outputs, view.targets) for view in found}


def beside_teacher(
    finished: Finished, kind: Kind, compute: Callable[[Tensor, Tensor, Tensor], T]
) -> dict[str, T]:
    """Head -> `compute(outputs, teacher's, targets)`; nothing without a teacher."""
    if finished.teacher_logits is None:
        return {}
    student = views(finished.task, kind, finished.logits, finished.targets)
    teacher = views(finished.task, kind, finished.teacher_logits, finished.targets)
    return {
        ours.head.name: compute(ours.outputs, theirs.outputs, ours.targets)
        for ours, theirs in zip(student, teacher, strict=True)
    }


def joined(*parts: str) -> str:
    """The key of a part of a head's measure: "colour_noise", or "noise" alone."""
    return "_".join(part for part in parts if part)
