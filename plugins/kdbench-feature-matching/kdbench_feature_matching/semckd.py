"""Semantic calibration across layers. Chen et al. 2021, AAAI, arXiv:2012.03236.

A(f) = F F^T, the batch's similarities (B, B) of a stage f flattened to F (B, D)
q_s = unit(MLP_s(A(f_s))), k_t = unit(MLP_t(A(f_t))): one row for each item
a_{b,s,t} = softmax_t(q_{b,s} . k_{b,t})
e_{b,s,t} = mean_{chw} [proj_{s,t}(f_s) - f_t]^2
loss = ce_weight * CE + kd_weight * T^2 KL(softmax(z_t / T) || softmax(z_s / T))
     + sem_weight * mean_{b,s} sum_t a_{b,s,t} e_{b,s,t}

s runs over all stages of the student, t over all of the teacher; each has an MLP of its
own (linear, ReLU, linear: B -> B / 2 -> B / 4), each (s, t) a projection (1x1, 3x3, 1x1
convolutions, twice as wide as f_t inside, batch norm and ReLU between). The KD term
belongs to the method: the authors run it with weight 1 and T 4 in all experiments.
Where sizes differ, the larger map is average-pooled; vectors are maps of 1x1, and need
no 3x3. B is the recipe's batch size; the similarities of a smaller last batch are
filled up with zeros (the authors' code cannot take one). The mean over s is the form of
their code, to which 400 belongs. The student learns through the attention, too, as
there. The projections are many: 850 million weights where resnet50 teaches.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Batch, Strategy, Tapped, at_least_float32, label_loss, soft_kl
from kdbench_feature_matching.geometry import as_rows, gram, shrink, unit
from kdbench_feature_matching.goals import Goal
from kdbench_feature_matching.maps import Norm, as_map
from kdbench_feature_matching.matching import Shape, stage_features


def embedding(items: int) -> nn.Sequential:
    """From an item's similarities (B, items) to (B, items / 4)."""
    width = max(1, items // 4)
    return nn.Sequential(
        nn.Linear(items, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
    )


def projection(student: Shape, teacher: Shape) -> nn.Sequential:
    """From student to teacher channels."""
    inner = 2 * teacher[0]
    size = 3 if len(student) == len(teacher) == 3 else 1
    return nn.Sequential(
        nn.Conv2d(student[0], inner, 1, bias=False),
        Norm(inner),
        nn.ReLU(),
        nn.Conv2d(inner, inner, size, padding=size // 2, bias=False),
        Norm(inner),
        nn.ReLU(),
        nn.Conv2d(inner, teacher[0], 1, bias=False),
    )


def similarities(stage: Tensor) -> Tensor:
    """A (B, B) of a stage (B, ...)."""
    return gram(as_rows(stage))


def embedded(stages: Sequence[Tensor], mlps: nn.ModuleList, items: int) -> Tensor:
    """Unit vectors (B, S, items / 4) of the similarities (B, B) of S stages."""
    vectors = []
    for stage, mlp in zip(stages, mlps, strict=True):
        padded = F.pad(stage, (0, items - len(stage)))
        vectors.append(unit(mlp(padded), dim=1))
    return torch.stack(vectors, dim=1)


class Calibration(nn.Module):
    """S stages of the student, T of the teacher and those' A -> the weighted error."""

    def __init__(
        self, student: Collection[Shape], teacher: Collection[Shape], items: int
    ) -> None:
        super().__init__()
        self.items = items
        self.queries = nn.ModuleList(embedding(items) for _ in student)
        self.keys = nn.ModuleList(embedding(items) for _ in teacher)
        self.projections = nn.ModuleList(
            nn.ModuleList(projection(s, t) for t in teacher) for s in student
        )

    def forward(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor],
        similar: Sequence[Tensor],
    ) -> Tensor:
        alike = [similarities(stage) for stage in student]
        queries = embedded(alike, self.queries, self.items)
        keys = embedded(similar, self.keys, self.items)
        attention = F.softmax(queries @ keys.transpose(1, 2), dim=2)  # (B, S, T)
        errors = []
        for own, projections in zip(student, self.projections, strict=True):
            assert isinstance(projections, nn.ModuleList)  # noqa: S101 (built above)
            for goal, project in zip(teacher, projections, strict=True):
                guess = project(shrink(own, goal.shape))
                error = (guess - shrink(goal, own.shape)).square()
                errors.append(error.flatten(1).mean(dim=1))
        weighted = attention * torch.stack(errors, dim=1).reshape(attention.shape)
        return weighted.sum(dim=2).mean()


@dataclass(frozen=True, kw_only=True)
class SemanticCalibration(Strategy):
    """Match every stage with every other one, as much as their relations agree."""

    name = "semckd"
    family = "feature matching"
    paper = "Chen et al. 2021, AAAI, arXiv:2012.03236"
    taps = ("stages",)

    temperature: float = 4.0  # dimensionless, > 0; authors' code
    ce_weight: float = 1.0  # >= 0; authors' scripts
    kd_weight: float = 1.0  # >= 0, on T^2 KL; authors' scripts
    sem_weight: float = 400.0  # >= 0, on the items' and stages' mean; authors' scripts

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        for model in (student, teacher):
            if model is None:
                return "there is no teacher"
            if not model.stages:
                return f"{model.name} has no stages"
            for stage, shape in model.stages.items():
                if len(shape) not in (1, 3):
                    return (
                        f"{stage} of {model.name} must be a map (C, H, W) or a vector "
                        f"(D,), not {shape}"
                    )
        return None

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        own, goals = student.stages.values(), teacher.stages.values()
        return Calibration(own, goals, student.recipe.batch_size)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.adapters is not None  # noqa: S101 (built by adapters() above)
        student, teacher = batch.student, batch.teacher
        sides = [
            [as_map(at_least_float32(f)) for f in stage_features(outputs).values()]
            for outputs in (student, teacher)
        ]
        ce = label_loss(batch.task, student.logits, batch.targets)
        kd = soft_kl(student.logits, teacher.logits, self.temperature)
        similar = [Goal(teacher, t).once(similarities) for t in stage_features(teacher)]
        sem = batch.adapters(sides[0], [f.detach() for f in sides[1]], similar)
        return {
            "ce": self.ce_weight * ce,
            "kd": self.kd_weight * kd,
            "calibration": self.sem_weight * sem,
        }
