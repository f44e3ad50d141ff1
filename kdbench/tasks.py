"""Tasks: what a dataset asks for, its label loss and its headline number.

Below the contract: imports nothing of kdbench's own but the plain data, and torch only
inside the functions that compute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kdbench.records import RMSE, TOP1, Headline

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("classification", "regression", "multi-task")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a dataset asks for.

    "classification": `outputs` classes, targets (N,) int64. "regression": `outputs`
    numbers in `unit`, targets (N, outputs) float32. "multi-task": several `heads`, side
    by side in the model's output; targets (N, columns) float32, a classification head
    taking one column and a regression head one for each number. `labels` are the names
    of the classes, in order, where they have such.
    """

    kind: Literal["classification", "regression", "multi-task"] = "classification"
    outputs: int
    unit: str = ""
    heads: tuple[Head, ...] = ()
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        total = sum(head.task.outputs for head in self.heads)
        if (self.kind == "multi-task") != bool(self.heads):
            raise ValueError("several heads and the kind 'multi-task' go together")
        if self.heads and total != self.outputs:
            raise ValueError(f"the heads have {total} outputs, not {self.outputs}")
        if self.labels and len(self.labels) != self.outputs:
            raise ValueError(f"{len(self.labels)} labels for {self.outputs} classes")

    @classmethod
    def several(cls, *heads: Head) -> Task:
        """A multi-task of these heads, in order."""
        outputs = sum(head.task.outputs for head in heads)
        return cls(kind="multi-task", outputs=outputs, heads=heads)

    @property
    def columns(self) -> int:
        """Columns of the targets; 0 where they are class indices, (N,)."""
        if self.kind == "classification":
            return 0
        return sum(max(1, head.task.columns) for head in self.heads) or self.outputs

    def sentence(self) -> str:
        """Such as "10 classes", "1 number (metres)" or the heads by name."""
        if self.heads:
            parts = (f"{head.name}: {head.task.sentence()}" for head in self.heads)
            return "; ".join(parts)
        if self.kind == "classification":
            return f"{self.outputs} classes"
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.outputs} number{'s' if self.outputs > 1 else ''}{unit}"

    @property
    def headline(self) -> Headline:
        """The number that students are ranked by; of several heads, the first's."""
        if self.heads:
            first = self.heads[0]
            own = first.task.headline
            return own.model_copy(
                update={
                    "name": f"{own.name}_{first.name}",
                    "title": f"{own.title} ({first.name})",
                }
            )
        if self.kind == "classification":
            return TOP1
        return RMSE.model_copy(update={"unit": self.unit, "gain_unit": self.unit})

    def split(self, outputs: Tensor, targets: Tensor) -> Iterator[View]:
        """Each head's part of (N, outputs) and of the targets; itself if it is one."""
        if not self.heads:
            yield View(Head(name="", task=self), outputs, targets)
        at = column = 0
        for head in self.heads:
            width = max(1, head.task.columns)
            part = targets[:, column : column + width]
            if head.task.kind == "classification":
                part = part[:, 0].long()
            yield View(head, outputs[:, at : at + head.task.outputs], part)
            at, column = at + head.task.outputs, column + width


@dataclass(frozen=True, kw_only=True)
class Head:
    """One of a multi-task's outputs; `weight` is that of its loss in the sum."""

    name: str
    task: Task
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class View:
    """One head with its (N, outputs) and its targets."""

    head: Head
    outputs: Tensor
    targets: Tensor


def label_loss(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """What a student alone minimises: a scalar, the mean over the batch.

    Cross-entropy of (B, C) logits to (B,) classes, in nats; mean squared error of
    (B, K) numbers to (B, K) standardised targets; of several heads the weighted sum.
    Half precision is widened to float32.
    """
    import torch
    import torch.nn.functional as F

    if outputs.dtype not in (torch.float32, torch.float64):
        outputs = outputs.float()
    if task.kind == "classification":
        return F.cross_entropy(outputs, targets)
    if task.kind == "regression":
        return F.mse_loss(outputs, targets.to(outputs.dtype))
    total = outputs.new_zeros(())
    for view in task.split(outputs, targets):
        own = label_loss(view.head.task, view.outputs, view.targets)
        total = total + view.head.weight * own
    return total


def label_target(task: Task, targets: Tensor) -> Tensor:
    """What labels alone tell a fitted student: (B, C) one-hot, or (B, K) numbers."""
    import torch.nn.functional as F

    if task.kind == "classification":
        return F.one_hot(targets, task.outputs).float()
    return targets


def headline_of(task: Task, outputs: Tensor, targets: Tensor) -> float:
    """The task's headline on (N, outputs) and targets in their own unit.

    Top-1 accuracy in percent, or the root mean square error.
    """
    view = next(task.split(outputs, targets))
    if view.head.task.kind == "classification":
        return 100 * (view.outputs.argmax(1) == view.targets).double().mean().item()
    return rmse(view.outputs, view.targets)


def rmse(outputs: Tensor, targets: Tensor) -> float:
    """Root mean square error over items and numbers, in the targets' unit."""
    wrong = outputs.double() - targets.double()
    return float(wrong.square().mean().sqrt().item())
