"""A batch as a strategy is shown it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from kdbench.api import Batch, ExtraView, Outputs
from kdbench.engine.feed import Step
from kdbench.engine.teacher import CHANGED, LIVELY, Ask, weights_hash
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


class Seen:
    """Teachers' answers as one learner sees them: without what only the company asks.

    The features are those of its own taps. The classifier, which a strategy could write
    to, is a copy of its own.
    """

    def __init__(self, taps: Mapping[int, frozenset[str]]):
        self._taps = taps
        self._copies: dict[nn.Linear, nn.Linear] = {}

    def __call__(self, ask: Ask, outputs: Outputs) -> Outputs:
        own = self._taps[ask[1]]
        features = {tap: x for tap, x in outputs.features.items() if tap in own}
        copy = self._copy_of(outputs.classifier)
        if copy is not None:
            outputs.shared.copies.append(copy)
        return replace(outputs, features=MappingProxyType(features), classifier=copy)

    def _copy_of(self, classifier: nn.Linear | None) -> nn.Linear | None:
        if classifier is None:
            return None
        if classifier not in self._copies:
            copy = deepcopy(classifier)
            copy._forward_hooks.clear()  # with which the teacher is tapped
            copy._forward_pre_hooks.clear()
            self._copies[classifier] = copy
        return self._copies[classifier]

    def check(self) -> None:
        """Raise where the learner has changed a classifier that it was shown."""
        for known, copy in self._copies.items():
            if copy.training or any(p.requires_grad for p in copy.parameters()):
                raise RuntimeError(LIVELY)
            if weights_hash(copy) != weights_hash(known):
                raise RuntimeError(CHANGED)
