"""Teacher features as inputs: a network without its last layer, then an estimator.

Razavian et al. 2014, arXiv:1403.6382 (a support vector machine on a convnet's
features); Tang 2013, arXiv:1306.0239.

target = (label_weight * one_hot(y) + kd_weight * softmax(z_t / T)) / (both weights)
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kdbench import Batch, Context, Outputs, Strategy, Tapped, label_target
from kdbench_sklearn.module import EstimatorModule


class OnFeatures(nn.Module):
    """A frozen trunk (B, ...) -> (B, D), and an estimator (B, D) -> (B, outputs)."""

    def __init__(self, trunk: nn.Module, head: EstimatorModule):
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.macs_unknown = head.macs_unknown

    @property
    def parameter_count(self) -> int | None:
        """Of both, or None where the estimator has no such count."""
        own = self.head.parameter_count
        return None if own is None else own + sum(p.numel() for p in self.parameters())

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.head(self.trunk(inputs).flatten(1))
        return found


def classifier_of(model: nn.Module, outputs: int) -> str | None:
    """Path of the model's last dense layer, if it has as many units as outputs."""
    dense = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    if not dense:
        return None
    last = model.get_submodule(dense[-1])
    fits = isinstance(last, nn.Linear) and last.out_features == outputs
    return dense[-1] if fits and dense[-1] else None


def trunk_of(model: nn.Module, path: str) -> nn.Module:
    """A frozen copy of the model that ends before the dense layer at `path`."""
    trunk = deepcopy(model).eval().requires_grad_(False)
    trunk.set_submodule(path, nn.Identity())
    # what the engine counts the teacher's forwards with came along with the copy
    trunk._forward_hooks.clear()
    trunk._forward_pre_hooks.clear()
    return trunk


def _as_trained(trunk: nn.Module, inputs: Tensor, context: Context) -> Tensor:
    """The trunk's features (N, D), in the precision that the teacher answers in."""
    rough = context.recipe.precision == "bfloat16"
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=rough):
        features: Tensor = trunk(inputs)
    return features.float()


@dataclass(frozen=True, kw_only=True)
class TeacherFeatures(Strategy):
    """Fit the student on the teacher's last features; deployed with its trunk."""

    name = "teacher_features"
    family = "teacher as features"
    paper = "Razavian et al. 2014, arXiv:1403.6382; Tang 2013, arXiv:1306.0239"
    tasks = ("classification", "regression")
    learners = ("fitted",)

    label_weight: float = 1.0  # >= 0, on the label; the papers': labels only
    kd_weight: float = 0.0  # >= 0, on the teacher's softened classes; the papers'
    temperature: float = 4.0  # dimensionless, > 0; unused at kd_weight 0; kd's default

    def __post_init__(self) -> None:
        for name in ("label_weight", "kd_weight"):
            value = getattr(self, name)
            if not value >= 0:  # so that nan is refused too
                raise ValueError(f"{name} must be >= 0, not {value}")
        if not self.label_weight + self.kd_weight > 0:
            raise ValueError("label_weight and kd_weight cannot both be 0")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be > 0, not {self.temperature}")

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        if not isinstance(student.model, EstimatorModule):
            return f"{student.name} is no estimator that can be fitted on features"
        if teacher is None:
            return f"{self.name} needs a teacher"
        if classifier_of(teacher.model, teacher.shapes["logits"][-1]) is None:
            return (
                f"the teacher {teacher.name} does not end in a dense layer whose "
                "inputs could be the features"
            )
        return None

    def target(self, batch: Batch) -> Tensor:
        """What the estimator learns: (B, C) probabilities, or (B, K) numbers."""
        told = batch.teacher.logits.double()
        if batch.task.kind == "classification":
            told = (told / self.temperature).softmax(1)
        label = label_target(batch.task, batch.targets)
        mixed = self.label_weight * label + self.kd_weight * told
        return mixed / (self.label_weight + self.kd_weight)

    def train(self, context: Context) -> nn.Module:
        """One pass over the training set, in its order."""
        [teacher] = context.teachers
        head = context.students[0]
        path = classifier_of(teacher, context.task.outputs)
        if path is None or not isinstance(head, EstimatorModule):
            raise TypeError(f"{self.name} does not support this teacher and student")
        trunk = trunk_of(teacher, path)
        if not head.fitted:  # it is, where an interrupted run goes on
            features, targets = self._collect(context, teacher, path, trunk)
            head.fit(features, targets)
        return OnFeatures(trunk, head)

    def _collect(
        self, context: Context, teacher: nn.Module, path: str, trunk: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """Features (N, D), caught where they enter the classifier, and targets."""
        caught: list[Tensor] = []
        targets: list[Tensor] = []
        index: list[Tensor] = []

        def catch(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            caught.append(args[0].flatten(1).float())

        place = teacher.get_submodule(path)
        with torch.no_grad(), place.register_forward_pre_hook(catch):
            for batch in context.items():
                logits = teacher(batch.inputs)
                if not index and not torch.equal(
                    _as_trained(trunk, batch.inputs, context), caught[0]
                ):
                    raise TypeError("the teacher does not end in its classifier")
                asked = replace(batch, teachers=(Outputs(logits=logits),))
                targets.append(self.target(asked))
                index.append(batch.index)
        order = torch.cat(index).argsort()
        return torch.cat(caught)[order], torch.cat(targets)[order]
