"""What the measures of quality are given: answers of which everything is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from kdbench.api import Finished
from kdbench.measure import Values, measure_all
from kdbench.measure.quality import QUALITY
from kdbench.tasks import Task

Make = Callable[..., Finished]


@pytest.fixture
def finished() -> Make:
    """A finished student by its logits and targets."""

    def make(logits: Tensor, targets: Tensor, **known: Any) -> Finished:
        values: dict[str, Any] = {
            "model": torch.nn.Identity(),
            "task": Task(outputs=logits.shape[1]),
            "device": "cpu",
            "sample": torch.zeros(1, 1),
            "teacher_logits": None,
        }
        return Finished(logits=logits, targets=targets, **{**values, **known})

    return make


@pytest.fixture
def case(finished: Make) -> Finished:
    """333 items of 7 classes, with a teacher; both are right more often than not."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(7, (333,), generator=generator)
    hint = 2 * torch.nn.functional.one_hot(targets, 7)
    logits, teacher = 2 * torch.randn(2, 333, 7, generator=generator) + hint
    return finished(logits, targets, teacher_logits=teacher)


@pytest.fixture
def measured() -> Callable[..., Values]:
    """All measures of quality, the optional ones that are asked for; no problems."""

    def measure(case: Finished, *asked: str) -> Values:
        found = measure_all(QUALITY, "run", case, asked)
        assert found.problems == []
        return found

    return measure
