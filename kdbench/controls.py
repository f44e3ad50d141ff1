"""Controls that every table needs: the student without a teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kdbench.api import Batch, Phase, Strategy, hookimpl
from kdbench.losses import at_least_float32, soft_kl
from kdbench.scratch import Scratch
from kdbench.tasks import label_loss, label_target


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


@dataclass(frozen=True, kw_only=True)
class ScratchLonger(Scratch):
    """The student alone, trained longer: what a teacher's share of the time buys.

    The schedule is stretched to `factor` times the recipe's epochs. A control: a
    strategy whose training takes `factor` times as long as scratch should beat it. By
    multiply-accumulates kd takes 1 + teacher / (3 student) times as long.
    """

    name = "scratch_longer"
    paper = "a control for the compute that a strategy adds"

    factor: float = 2.0  # times the recipe's epochs, >= 1; ours, kd's of resnet56-20

    def __post_init__(self) -> None:
        if not self.factor >= 1:
            raise ValueError(f"factor must be >= 1, not {self.factor}")

    def phases(self) -> tuple[Phase, ...]:
        return (Phase(times=self.factor),)


@dataclass(frozen=True, kw_only=True)
class ScratchFewLabels(Strategy):
    """The student alone, on few labels: what semi-supervised strategies have to beat.

    loss = mean CE over the labelled items of the batch. Those strategies are taught by
    the pair's teacher, which knew all labels.
    """

    name = "scratch_few_labels"
    family = "control"
    paper = "a control for strategies that use few labels"
    teachers = 0

    label_fraction: float = 0.1  # share of the labels used, (0, 1]; our benchmark's

    def __post_init__(self) -> None:
        if not 0 < self.label_fraction <= 1:
            given = self.label_fraction
            raise ValueError(f"label_fraction must be in (0, 1], not {given}")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits = at_least_float32(batch.student.logits)
        each = F.cross_entropy(logits, batch.targets, reduction="none")
        count = batch.labelled.sum().clamp(min=1)
        return {"ce": (each * batch.labelled).sum() / count}


def virtual_teacher(targets: Tensor, classes: int, confidence: float) -> Tensor:
    """(B, C) probabilities: `confidence` for the true class, the rest in equal parts.

    Yuan et al. 2020, equation 9, for (B,) class indices.
    """
    rest = (1 - confidence) / (classes - 1)
    hard = F.one_hot(targets, classes).float()
    return rest + (confidence - rest) * hard


@dataclass(frozen=True, kw_only=True)
class TeacherFreeKD(Strategy):
    """Distillation from a teacher that is always right and knows nothing else.

    loss = ce_weight * CE + kd_weight * KL(softmax(v / T) || softmax(z_s)), with v the
    virtual teacher's probabilities (Yuan et al. 2020, equations 9 and 10). T softens
    the virtual teacher alone and there is no T^2, as in the authors' code.
    """

    name = "tf_kd"
    family = "control"
    paper = "Yuan et al. 2020, arXiv:1909.11723"
    teachers = 0

    confidence: float = 0.99  # probability of the true class, in (0, 1); paper
    temperature: float = 20.0  # dimensionless, > 0; paper
    ce_weight: float = 0.9  # >= 0, the paper's 1 - alpha; paper
    kd_weight: float = 0.1  # >= 0, the paper's alpha; paper

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be in (0, 1), not {self.confidence}")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        student = batch.student.logits
        teacher = virtual_teacher(batch.targets, student.shape[1], self.confidence)
        kd = soft_kl(student, teacher / self.temperature)
        return {
            "ce": self.ce_weight * label_loss(batch.task, student, batch.targets),
            "kd": self.kd_weight * kd,
        }


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [Scratch, LabelSmoothing, ScratchLonger, ScratchFewLabels, TeacherFreeKD]
