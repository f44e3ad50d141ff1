"""Quality of a student on the whole test set, from its outputs.

Of several heads, each has its own number, named after the head.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import numpy as np
from torch import Tensor

from kdbench.api import Finished, Measure
from kdbench.tasks import rmse


def by_head(
    finished: Finished, kind: str, compute: Callable[[Tensor, Tensor], float]
) -> dict[str, float]:
    """Head name ("" where there is one) -> `compute(outputs, targets)`."""
    views = finished.task.split(finished.logits, finished.targets)
    return {
        view.head.name: compute(view.outputs, view.targets)
        for view in views
        if view.head.task.kind == kind
    }


def correct(logits: Tensor, targets: Tensor) -> Tensor:
    """(N,) bool: which items are classified rightly."""
    return logits.argmax(1) == targets


def percent_correct(logits: Tensor, targets: Tensor) -> float:
    """Share of items whose largest logit is the label's, in percent."""
    return 100 * correct(logits, targets).double().mean().item()


def mae(outputs: Tensor, targets: Tensor) -> float:
    """Mean absolute error over items and numbers, in the targets' unit."""
    return float((outputs.double() - targets.double()).abs().mean().item())


def r2(outputs: Tensor, targets: Tensor) -> float:
    """Coefficient of determination, the mean over the numbers predicted.

    1 - sum (y - f)^2 / sum (y - mean y)^2: 1 is perfect, 0 what the mean reaches. NaN
    where a target is constant.
    """
    truth = targets.double()
    residual = (truth - outputs.double()).square().sum(0)
    total = (truth - truth.mean(0)).square().sum(0)
    return float((1 - residual / total).mean().item())


def agreement(finished: Finished) -> dict[str, float | None]:
    """Share of test items on which student and teacher say the same class, percent.

    Fidelity is not accuracy: Stanton et al. 2021, arXiv:2106.05945, eq. 4.
    """
    if finished.teacher_logits is None:
        return {}
    teacher = finished.task.split(finished.teacher_logits, finished.targets)
    student = finished.task.split(finished.logits, finished.targets)
    return {
        ours.head.name: percent_correct(ours.outputs, theirs.outputs.argmax(1))
        for ours, theirs in zip(student, teacher, strict=True)
        if ours.head.task.kind == "classification"
    }


def distance(finished: Finished) -> dict[str, float | None]:
    """Root mean square difference of student and teacher, in the targets' unit."""
    if finished.teacher_logits is None:
        return {}
    teacher = finished.task.split(finished.teacher_logits, finished.targets)
    student = finished.task.split(finished.logits, finished.targets)
    return {
        ours.head.name: rmse(ours.outputs, theirs.outputs)
        for ours, theirs in zip(student, teacher, strict=True)
        if ours.head.task.kind == "regression"
    }


def bitmask(right: Tensor) -> str:
    """(N,) bool -> base64 of one bit per item, packed as numpy.packbits does."""
    return base64.b64encode(np.packbits(right.numpy()).tobytes()).decode()


CLASSES = ("classification", "multi-task")
NUMBERS = ("regression", "multi-task")

QUALITY = [
    Measure(
        name="top1",
        summary="accuracy on the test set after the last epoch",
        unit="%",
        better="higher",
        tasks=CLASSES,
        compute=lambda finished: by_head(finished, "classification", percent_correct),
    ),
    Measure(
        name="agreement",
        summary="test items on which student and teacher say the same class",
        unit="%",
        better="higher",
        tasks=CLASSES,
        compute=agreement,
    ),
    Measure(
        name="rmse",
        summary="root mean square error on the test set after the last epoch",
        unit="target",
        better="lower",
        tasks=NUMBERS,
        compute=lambda finished: by_head(finished, "regression", rmse),
    ),
    Measure(
        name="mae",
        summary="mean absolute error",
        unit="target",
        better="lower",
        tasks=NUMBERS,
        compute=lambda finished: by_head(finished, "regression", mae),
    ),
    Measure(
        name="r2",
        summary="coefficient of determination",
        unit="",
        better="higher",
        tasks=NUMBERS,
        compute=lambda finished: by_head(finished, "regression", r2),
    ),
    Measure(
        name="teacher_rmse",
        summary="root mean square difference to the teacher's answers",
        unit="target",
        better="lower",
        tasks=NUMBERS,
        compute=distance,
    ),
]
