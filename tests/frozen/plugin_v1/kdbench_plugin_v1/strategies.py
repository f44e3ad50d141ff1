"""Levels 1 to 3."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import (
    Batch,
    Outputs,
    Phase,
    Strategy,
    Tapped,
    at_least_float32,
    label_loss,
    label_target,
    soft_kl,
)


@dataclass(frozen=True, kw_only=True)
class Soft(Strategy):
    """Level 1: softened classes (Hinton et al. 2015, arXiv:1503.02531).

    And what a student without gradients learns.
    """

    name = "v1_soft"
    family = "version 1"
    paper = "Hinton et al. 2015, arXiv:1503.02531"
    tasks = ("classification",)
    presets = MappingProxyType(
        {"gentle": {"v1-pair": {"temperature": 8.0, "kd_weight": 0.5}}}
    )

    temperature: float = 4.0  # dimensionless, > 0; the paper's
    ce_weight: float = 0.1  # dimensionless, >= 0; weight of the labels
    kd_weight: float = 0.9  # dimensionless, >= 0; weight of the teacher

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature > 100:
            raise ValueError(f"temperature must be <= 100, not {self.temperature}")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        kd = soft_kl(batch.student.logits, batch.teacher.logits, self.temperature)
        ce = label_loss(batch.task, batch.student.logits, batch.targets)
        return {"ce": self.ce_weight * ce, "kd": self.kd_weight * kd}

    def target(self, batch: Batch) -> Tensor:
        soft = (at_least_float32(batch.teacher.logits) / self.temperature).softmax(1)
        hard = label_target(batch.task, batch.targets)
        whole = self.ce_weight + self.kd_weight
        return (self.ce_weight * hard + self.kd_weight * soft) / whole


def gram(teacher: Outputs, tap: str) -> Tensor:
    rows = F.normalize(teacher.features[tap].flatten(1))
    return rows @ rows.T


class Regressor(nn.Module):
    """(B, ours) -> (B, theirs), and a running mean that is no parameter."""

    mean: Tensor

    def __init__(self, ours: int, theirs: int):
        super().__init__()
        self.layer = nn.Linear(ours, theirs)
        self.register_buffer("mean", torch.zeros(theirs))

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.layer(features)
        return found


@dataclass(frozen=True, kw_only=True)
class Hints(Strategy):
    """Level 2: features through a regressor (Romero et al. 2015, arXiv:1412.6550)."""

    name = "v1_hints"
    family = "version 1"
    paper = "Romero et al. 2015, arXiv:1412.6550"
    taps = ("stage1", "pooled")

    hint_weight: float = 1.0  # dimensionless, >= 0; the paper's is 100
    gram_weight: float = 1.0  # dimensionless, >= 0

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        if teacher is None or len(teacher.shapes["stage1"]) != 1:
            return "v1_hints reads dense layers"
        return None

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        return Regressor(student.shapes["stage1"][0], teacher.shapes["stage1"][0])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        regressor = batch.adapters
        assert isinstance(regressor, Regressor)
        theirs = batch.teacher.features["stage1"]
        with torch.no_grad():
            regressor.mean.lerp_(theirs.mean(0), 0.1)
        hint = F.mse_loss(regressor(batch.student.features["stage1"]), theirs)
        ours = F.normalize(batch.student.features["pooled"])
        relation = F.mse_loss(ours @ ours.T, batch.teacher.once(gram, "pooled"))
        return {
            "ce": F.cross_entropy(batch.student.logits, batch.targets),
            "hint": self.hint_weight * hint,
            "gram": self.gram_weight * relation,
        }


@dataclass(frozen=True, kw_only=True)
class Peers(Strategy):
    """Level 3: two students (Zhang et al. 2018, arXiv:1706.00384), labels in part."""

    name = "v1_peers"
    family = "version 1"
    paper = "Zhang et al. 2018, arXiv:1706.00384"
    students: int = 2  # count; the paper's
    label_fraction: float = 0.5  # share of the labels, 0 to 1
    teachers = 0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        for k, student in enumerate(batch.students):
            each = F.cross_entropy(student.logits, batch.targets, reduction="none")
            terms[f"ce{k}"] = (each * batch.labelled).sum() / len(each)
            for j, other in enumerate(batch.students):
                if j != k:
                    terms[f"kl{k}{j}"] = soft_kl(student.logits, other.logits)
        return terms

    def deployed(
        self, students: Sequence[nn.Module], adapters: nn.Module | None
    ) -> nn.Module:
        return students[1]


@dataclass(frozen=True, kw_only=True)
class Views(Strategy):
    """Level 3: another item of the class, two teachers, and the random stream."""

    name = "v1_views"
    family = "version 1"
    paper = "Yun et al. 2020, arXiv:2003.13964"
    views = ("same_class",)
    student_views = ("", "same_class")
    teacher_views = ("",)
    teachers = 2

    noise: float = 0.1  # of a logit, >= 0
    view_weight: float = 1.0  # dimensionless, >= 0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits = torch.stack([teacher.logits for teacher in batch.teachers]).mean(0)
        drawn = torch.randn(logits.shape, generator=batch.generator)
        view = batch.views["same_class"].students[0]
        ours = batch.student.logits
        return {
            "ce": F.cross_entropy(ours, batch.targets),
            "kd": soft_kl(ours, logits + self.noise * drawn.to(logits)),
            "view": self.view_weight * batch.progress * soft_kl(ours, view.logits),
        }


@dataclass(frozen=True, kw_only=True)
class Phased(Strategy):
    """Level 3: first the features, then the labels; an assistant beside the student."""

    name = "v1_phased"
    family = "version 1"
    paper = "Mirzadeh et al. 2020, arXiv:1902.03393"
    taps = ("pooled",)
    assistants = 1

    warm_up_epochs: int = 1  # epochs, >= 0

    def phases(self) -> tuple[Phase, ...]:
        return (
            Phase(name="assistant", epochs=self.warm_up_epochs, students=(1,)),
            Phase(students=(0,), peers=(1,), teachers=()),
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        kd = soft_kl(batch.student.logits, batch.teacher.logits, 4.0)
        ce = F.cross_entropy(batch.student.logits, batch.targets)
        return {f"kd {batch.phase}".strip(): kd, "ce": ce}
