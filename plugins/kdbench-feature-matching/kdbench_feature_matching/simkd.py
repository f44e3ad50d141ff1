"""Simple knowledge distillation with the reused teacher classifier. Chen et al. 2022,
arXiv:2203.14001, section 3.

loss = feature_weight * mean (P(m_s) - m_t)^2

m are the maps that either model averages before its classifier, the larger pooled to
the size of the smaller; P is 1x1, 3x3 and 1x1 convolutions, each with batch norm and
ReLU, with 1 / reduction of the teacher's width inside. P is one linear layer where both
models classify vectors that are no average (ours; the paper has none). No label is
used. What is deployed is the student's body, P, the average and the teacher's
classifier, frozen; the student's own classifier is gone. The authors take the last
stage's output, before the last convolution of a MobileNetV2 or ShuffleNetV2, which they
drop; here the student keeps that.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench import Batch, Strategy, Tapped
from kdbench_feature_matching.geometry import shrink
from kdbench_feature_matching.heads import MAPS, why_no_head
from kdbench_feature_matching.maps import Norm


def bottleneck(student: int, teacher: int, reduction: int) -> nn.Sequential:
    """From maps of `student` channels to maps of `teacher` channels."""
    inner = max(1, teacher // reduction)
    layers: list[nn.Module] = []
    for i, o, kernel in ((student, inner, 1), (inner, inner, 3), (inner, teacher, 1)):
        conv = nn.Conv2d(i, o, kernel, padding=kernel // 2, bias=False)
        layers += [conv, Norm(o), nn.ReLU()]
    return nn.Sequential(*layers)


class Reused(nn.Module):
    """The projector and the teacher's classifier, frozen: what follows the student."""

    def __init__(self, student: Tapped, teacher: Tapped, reduction: int):
        super().__init__()
        widths = student.shapes[MAPS][0], teacher.shapes[MAPS][0]
        self.of_maps = len(student.shapes[MAPS]) == 3
        self.project: nn.Module = nn.Linear(*widths)
        if self.of_maps:
            self.project = bottleneck(*widths, reduction)
        self.classifier = copy.deepcopy(teacher.part("pooled")).requires_grad_(False)
        self.size = teacher.shapes[MAPS]
        self.paths = {k: v.removesuffix(":input") for k, v in student.paths.items()}

    def forward(self, maps: Tensor) -> Tensor:
        """The student's maps or vectors as the teacher's, of the smaller size."""
        maps = shrink(maps, self.size) if self.of_maps else maps
        projected: Tensor = self.project(maps)
        return projected


class Deployed(nn.Module):
    """Inputs to logits: the student without its classifier, then what is reused."""

    def __init__(self, body: nn.Module, reused: Reused):
        super().__init__()
        body.set_submodule(reused.paths["pooled"], nn.Identity())
        body.get_submodule(reused.paths[MAPS]).register_forward_pre_hook(self._catch)
        self.body, self.reused = body, reused
        self.caught: tuple[Tensor, ...] = ()

    def _catch(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.caught = inputs

    def forward(self, inputs: Tensor) -> Tensor:
        self.body(inputs)
        (maps,), self.caught = self.caught, ()
        projected = self.reused(maps)
        pooled = projected.flatten(2).mean(dim=2) if self.reused.of_maps else projected
        logits: Tensor = self.reused.classifier(pooled)
        return logits


@dataclass(frozen=True, kw_only=True)
class ReusedClassifier(Strategy):
    """Make the student's features the teacher's, and keep the teacher's classifier."""

    name = "simkd"
    family = "feature matching"
    paper = "Chen et al. 2022, arXiv:2203.14001"
    taps = (MAPS, "pooled")
    replaces_classifier = True

    reduction: int = 2  # teacher's width / projector's inner width, >= 1; authors' code
    feature_weight: float = 1.0  # >= 0, on the mean square; authors' code

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reduction < 1:
            raise ValueError(f"reduction must be >= 1, not {self.reduction}")

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        reason = why_no_head(teacher) or why_no_head(student)
        if reason or teacher is None:
            return reason
        shapes = student.shapes[MAPS], teacher.shapes[MAPS]
        if len(shapes[0]) == len(shapes[1]):
            return None
        return f"a projector leads maps to maps or vectors to vectors, not {shapes}"

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        return Reused(student, teacher, self.reduction)

    def deployed(
        self, students: Sequence[nn.Module], adapters: nn.Module | None
    ) -> nn.Module:
        assert isinstance(adapters, Reused)  # noqa: S101 (built by adapters() above)
        return Deployed(students[0], adapters)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        reused = batch.adapters
        assert isinstance(reused, Reused)  # noqa: S101 (built by adapters() above)
        dtype = next(reused.parameters()).dtype
        student = batch.student.features[MAPS].to(dtype)
        teacher = batch.teacher.features[MAPS].detach().to(dtype)
        teacher = shrink(teacher, student.shape) if reused.of_maps else teacher
        matched = F.mse_loss(reused(student), teacher)
        return {"feature": self.feature_weight * matched}
