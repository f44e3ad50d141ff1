"""What a run trains with: fresh students, and the recipe's optimiser."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from kdbench.api import Dataset, Model, Strategy, Tapped
from kdbench.engine.streams import global_stream
from kdbench.models.taps import probe
from kdbench.records import Recipe, Run


def make_optimiser(
    recipe: Recipe, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """The recipe's optimiser; weight decay covers every parameter alike (rule 12)."""
    wanted = list(parameters)
    if recipe.optimiser == "adam":
        return torch.optim.Adam(
            wanted, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
    return torch.optim.SGD(
        wanted,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def build_students(
    run: Run, specs: Sequence[Model], dataset: Dataset, teacher: nn.Module | None = None
) -> list[nn.Module]:
    """Fresh students: the same start for every strategy of a seed (rule 14).

    A model that is made out of its teacher is given the leading one.
    """
    purpose = "teacher init" if run.is_teacher else "init"
    students = []
    for slot, spec in enumerate(specs):
        with global_stream(run.seed, purpose, spec.name, slot):
            if spec.from_teacher is None or teacher is None:
                student = dataset.build(spec)
            else:
                size = (dataset.input_shape, dataset.task.outputs)
                student = spec.from_teacher(teacher, *size)
        students.append(channels_last(student).requires_grad_().train())
    return students


def side_of(
    spec: Model,
    module: nn.Module,
    dataset: Dataset,
    strategy: Strategy,
    recipe: Recipe,
    targets: Tensor,
) -> Tapped:
    """One side of the pair as `adapters` is shown it."""
    return replace(
        probe(spec, strategy.taps, dataset),
        model=deepcopy(module),
        recipe=recipe,
        targets=targets.clone(),
    )


def channels_last(module: nn.Module) -> nn.Module:
    """The module with its convolutions' weights in the faster layout."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            layout = torch.channels_last
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return module
