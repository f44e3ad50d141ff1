"""FitNets: hints for thin deep nets. Romero et al. 2015, arXiv:1412.6550, equation 3.

hint loss = 1/2 ||t - r(s)||^2, with s and t the features of one stage and r a learned
regressor; the weight of 100 belongs to its mean over all elements (the field's form):
loss = ce_weight * CE + hint_weight * mean (t - r(s))^2, both from the first epoch on
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import KINDS, Batch, Strategy, Tapped, label_loss
from kdbench_feature_matching.geometry import at_least_float32, shrink
from kdbench_feature_matching.matching import lacks
from kdbench_feature_matching.ranges import refuse_negative


def hint_loss(
    student: Tensor, teacher: Tensor, reduction: Literal["mean", "half_sum"] = "mean"
) -> Tensor:
    """Squared difference of two features of one shape: a scalar.

    "mean" is over all elements; "half_sum" is equation 3, summed over the batch. The
    teacher is a constant.
    """
    student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
    if reduction == "mean":
        return F.mse_loss(student, teacher)
    return 0.5 * F.mse_loss(student, teacher, reduction="sum")


class Regressor(nn.Module):
    """From student to teacher width: 1x1 convolution of maps, linear for vectors."""

    def __init__(self, student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
        super().__init__()
        self.project: nn.Linear | nn.Conv2d
        if len(student) == 1:
            self.project = nn.Linear(student[0], teacher[0])
        else:
            self.project = nn.Conv2d(student[0], teacher[0], kernel_size=1)

    def forward(self, feature: Tensor) -> Tensor:
        projected: Tensor = self.project(feature.to(self.project.weight.dtype))
        return projected


@dataclass(frozen=True, kw_only=True)
class FitNet(Strategy):
    """Regress the teacher's features at one stage from the student's."""

    name = "fitnet"
    family = "feature matching"
    paper = "Romero et al. 2015, arXiv:1412.6550"
    tasks = KINDS

    hint_stage: int = 2  # stage number, >= 1; the field's CIFAR-100 setting
    ce_weight: float = 1.0  # >= 0; the field's CIFAR-100 setting
    hint_weight: float = 100.0  # >= 0, on the mean square; the field's setting

    def __post_init__(self) -> None:
        if self.hint_stage < 1:
            raise ValueError(f"hint_stage must be >= 1, not {self.hint_stage}")
        refuse_negative(self, ("ce_weight", "hint_weight"))

    @property
    def tap(self) -> str:
        """Name of the hint stage."""
        return f"stage{self.hint_stage}"

    @property
    def taps(self) -> tuple[str, ...]:  # type: ignore[override]  # follows a field
        """The hint stage only."""
        return (self.tap,)

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        missing = lacks(self.tap, student, teacher)
        if missing or teacher is None:
            return missing
        ranks = len(student.shapes[self.tap]), len(teacher.shapes[self.tap])
        if ranks in {(1, 1), (3, 3)}:
            return None
        return (
            f"{self.tap} must be a map (C, H, W) in both models or a vector (D,) in "
            f"both: {student.name} has {student.shapes[self.tap]}, {teacher.name} has "
            f"{teacher.shapes[self.tap]}"
        )

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        return Regressor(student.shapes[self.tap], teacher.shapes[self.tap])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.adapters is not None  # noqa: S101 (built by adapters() above)
        student = batch.student.features[self.tap]
        teacher = batch.teacher.features[self.tap]
        if student.ndim == 4:  # (B, C, H, W); pooling commutes with the 1x1 projection
            student, teacher = (
                shrink(at_least_float32(student), teacher.shape),
                shrink(at_least_float32(teacher.detach()), student.shape),
            )
        hint = hint_loss(batch.adapters(student), teacher)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {
            "ce": self.ce_weight * ce,
            "hint": self.hint_weight * hint,
        }
