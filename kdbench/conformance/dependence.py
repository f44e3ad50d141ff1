"""Which of the answers the terms of a strategy depend on, found by trying."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from kdbench.api import Batch, Outputs, Strategy
from kdbench.conformance.looking import latest, values
from kdbench.conformance.variants import is_answer, is_students, mapped, named
from kdbench.conformance.watched import Watch

FAMILIES = {"stages": r"stage\d+", "preacts": r"preact\d+"}
"""Taps that stand for a list of features, and what those are called."""


def counting(strategy: Strategy, watch: Watch) -> set[str]:
    """The answers that some term of some phase depends on, by name."""
    return {
        name
        for look in latest(watch)
        for name, x in named(look.batch).items()
        if is_answer(name)
        and x.is_floating_point()
        and _differs(strategy, look.batch, _noised(look.batch, name))
    }


def reads_head(strategy: Strategy, watch: Watch) -> bool:
    """Whether "pooled" is tapped for the classifier behind it."""

    def other(outputs: Outputs) -> Outputs:
        classifier = deepcopy(outputs.classifier)
        for parameter in () if classifier is None else classifier.parameters():
            parameter.data = parameter.data.flip(0) + 0.1
        return replace(outputs, classifier=classifier)

    def changed(batch: Batch) -> Batch:
        students, teachers = batch.students, batch.teachers
        return replace(
            batch,
            students=tuple(map(other, students)),
            teachers=tuple(map(other, teachers)),
        )

    return strategy.deploys_another or any(
        _differs(strategy, look.batch, changed(look.batch)) for look in latest(watch)
    )


def is_of(tap: str, name: str) -> bool:
    """Whether a tensor of a batch is a feature that this tap stands for."""
    feature = name.rpartition(": ")[2]
    return bool(re.fullmatch(FAMILIES.get(tap, re.escape(tap)), feature))


def last_of(watch: Watch, tap: str) -> set[str]:
    """The students' last features of a list, by their names in batches."""
    found: dict[int, set[str]] = {}
    for look in watch.looks:
        for name in named(look.batch):
            if is_students(name) and is_of(tap, name):
                place = int(re.sub(r".*\D", "", name))
                found.setdefault(place, set()).add(name)
    return found[max(found)] if found else set()


def _noised(batch: Batch, name: str) -> Batch:
    """With noise of the same spread in place of one tensor."""

    def change(this: str, x: Tensor) -> Tensor:
        if this != name:
            return x
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        return (x.mean() + (x.std() + 0.1) * noise).to(x.dtype)

    return mapped(batch, change)


def _differs(strategy: Strategy, batch: Batch, other: Batch) -> bool:
    return values(strategy, batch) != values(strategy, other)
