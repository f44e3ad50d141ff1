"""What a teacher's feature is turned into, once per batch for all who learn from it."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Self, TypeVar

from torch import Tensor

from kdbench import Batch, Outputs
from kdbench_feature_matching.matching import matched_stages

T = TypeVar("T")


@dataclass(frozen=True)
class Goal:
    """One feature of a teacher."""

    outputs: Outputs
    tap: str

    @classmethod
    def of(cls, feature: Tensor) -> Self:
        """A feature (B, ...) that comes by itself, as a constant."""
        feature = feature.detach()
        return cls(Outputs(feature, {"feature": feature}), "feature")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.outputs.features[self.tap].shape)

    def once(self, make: Callable[..., T], *args: Hashable) -> T:
        """make(feature, *args), shared and without gradients: see `Outputs.once`."""
        made: T = self.outputs.once(_made_of, self.tap, make, *args)
        return made


def _made_of(outputs: Outputs, tap: str, make: Callable[..., T], *args: Hashable) -> T:
    return make(outputs.features[tap].detach(), *args)


def stage_goals(batch: Batch) -> list[tuple[Tensor, Goal]]:
    """Matched (student, teacher) features of every student stage."""
    student, teacher = batch.student, batch.teacher
    names = matched_stages(student, teacher)
    return [(student.features[s], Goal(teacher, t)) for s, t in names]


def pooled_goal(batch: Batch) -> tuple[Tensor, Goal]:
    """The student's pooled vectors (B, D), and the teacher's."""
    return batch.student.features["pooled"], Goal(batch.teacher, "pooled")
