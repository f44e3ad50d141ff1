"""The student alone: every gain's baseline, and how teachers are trained.

Apart from the other controls, so that no change to them is one to every teacher.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kdbench.api import Batch, Strategy
from kdbench.tasks import KINDS, label_loss, label_target


@dataclass(frozen=True, kw_only=True)
class Scratch(Strategy):
    """The student alone, on the labels by the task's loss: every gain's baseline."""

    name = "scratch"
    family = "control"
    paper = "the protocol's baseline"
    tasks = KINDS
    teachers = 0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"ce": label_loss(batch.task, batch.student.logits, batch.targets)}

    def target(self, batch: Batch) -> Tensor:
        return label_target(batch.task, batch.targets)
