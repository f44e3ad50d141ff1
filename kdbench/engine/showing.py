"""A batch as a strategy is shown it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from kdbench.api import Batch, ExtraView, Outputs
from kdbench.engine.feed import Step
from kdbench.tasks import Task

Answers = Mapping[str, tuple[Outputs, ...]]
"""By view ("" is the batch as it is) what several networks answer."""

NONE: Answers = MappingProxyType({})


def shown(
    step: Step,
    task: Task,
    views: Sequence[str],
    *,
    labelled: Tensor | None,
    epoch: float,
    progress: float,
    generator: torch.Generator,
    students: Answers = NONE,
    teachers: Answers = NONE,
    adapters: nn.Module | None = None,
    phase: str = "",
    kind: type[Batch] = Batch,
) -> Batch:
    """A batch of this kind; `labelled` is a mask over the training set, None for all.

    Who does not answer to a view has no answers there.
    """
    if labelled is None:
        known = torch.ones_like(step.index, dtype=torch.bool)
    else:
        known = labelled[step.index]
    return kind(
        task=task,
        inputs=step.inputs,
        targets=step.targets,
        index=step.index,
        labelled=known,
        students=students.get("", ()),
        teachers=teachers.get("", ()),
        adapters=adapters,
        progress=progress,
        epoch=epoch,
        generator=generator,
        phase=phase,
        views={
            name: ExtraView(
                inputs=step.views[name].inputs,
                partner=step.views[name].partner,
                share=step.views[name].share,
                students=students.get(name, ()),
                teachers=teachers.get(name, ()),
            )
            for name in views
        },
    )
