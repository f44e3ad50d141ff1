"""FitNets: hints for thin deep nets. Romero et al. 2015, arXiv:1412.6550, equation 3.

hint loss = 1/2 ||t - r(s)||^2, with s and t the features of one stage and r a learned
regressor; the weight of 100 belongs to its mean over all elements (the field's form):
loss = ce_weight * CE + hint_weight * mean (t - r(s))^2, both from the first epoch on

r is the field's, as is the weight: convolution (of vectors a linear layer), batch norm,
without which that weight kills small students, and ReLU. Where sizes differ, the field
strides a larger convolution or transposes it; here the larger map is average-pooled.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from kdbench import KINDS, Batch, Strategy, Tapped, label_loss
from kdbench_feature_matching.geometry import alike, sum_of_squares
from kdbench_feature_matching.matching import why_unlike
from kdbench_feature_matching.regressor import Regressor


def hint_loss(student: Tensor, teacher: Tensor, half_sum: bool = False) -> Tensor:
    """Mean (t - s)^2 of features of one shape, or equation 3, summed over the batch."""
    gap = student - teacher.detach()
    squares = sum_of_squares(gap, tuple(range(gap.ndim))).sum()
    return squares / 2 if half_sum else squares / gap.numel()


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
        super().__post_init__()
        if self.hint_stage < 1:
            raise ValueError(f"hint_stage must be >= 1, not {self.hint_stage}")

    @property
    def taps(self) -> tuple[str, ...]:  # type: ignore[override]  # follows a field
        return (f"stage{self.hint_stage}",)

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        return why_unlike(student, self.taps[0], teacher, self.taps[0])

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        return Regressor(student.shapes[self.taps[0]], teacher.shapes[self.taps[0]])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.adapters is not None  # noqa: S101 (built by adapters() above)
        tap = self.taps[0]
        s, t = alike(batch.student.features[tap], batch.teacher.features[tap])
        hint = hint_loss(batch.adapters(s), t)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "hint": self.hint_weight * hint}
