"""Controls that every table needs: the student without a teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench.api import Batch, Strategy, hookimpl
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


@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(Strategy):
    """Cross-entropy to targets mixed with the uniform distribution, no teacher.

    target = (1 - s) * one_hot(y) + s / C. A control: it regularises as soft targets
    do, without knowing anything of the teacher.
    """

    name = "label_smoothing"
    family = "control"
    paper = "Szegedy et al. 2016, arXiv:1512.00567, section 7"
    teachers = 0

    smoothing: float = 0.1  # share of the mass spread over all classes; the paper's

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing must be in [0, 1), not {self.smoothing}")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {
            "ce": F.cross_entropy(
                batch.student.logits, batch.targets, label_smoothing=self.smoothing
            )
        }

    def target(self, batch: Batch) -> Tensor:
        hard = label_target(batch.task, batch.targets)
        return (1 - self.smoothing) * hard + self.smoothing / batch.task.outputs


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [Scratch, LabelSmoothing]
