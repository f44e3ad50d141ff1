"""Quality of a student on the whole test set, from its outputs.

Of several heads, each has its own number, named after the head.
"""

from __future__ import annotations

import base64

import numpy as np
import torch
from torch import Tensor

from kdbench.api import Finished, Measure
from kdbench.measure.calibration import CALIBRATION
from kdbench.measure.fidelity import FIDELITY
from kdbench.measure.heads import CLASSES, NUMBERS, by_head, views
from kdbench.measure.robustness import ROBUSTNESS
from kdbench.tasks import rmse

TOP = 5
"""Guesses that top-5 allows. Among that many classes it would always be 100%."""


def correct(logits: Tensor, targets: Tensor) -> Tensor:
    """(N,) bool: which items are classified rightly."""
    return logits.argmax(1) == targets


def percent_correct(logits: Tensor, targets: Tensor) -> float:
    """Share of items whose largest logit is the label's, in percent."""
    return 100 * correct(logits, targets).double().mean().item()


def top5(finished: Finished) -> dict[str, float]:
    """Share of items whose label is among the five largest logits, in percent.

    Only of heads with more than five classes.
    """
    found = views(finished.task, "classification", finished.logits, finished.targets)
    return {
        view.head.name: _percent_in_top(view.outputs, view.targets)
        for view in found
        if view.head.task.outputs > TOP
    }


def _percent_in_top(logits: Tensor, targets: Tensor) -> float:
    guesses = logits.topk(TOP, dim=1).indices
    return 100 * (guesses == targets[:, None]).any(1).double().mean().item()


def per_class(logits: Tensor, targets: Tensor) -> list[float | None]:
    """Of each class's items the share classified rightly (recall), in percent.

    None for a class without a test item.
    """
    classes = logits.shape[1]
    items = torch.bincount(targets, minlength=classes).tolist()
    hits = targets[correct(logits, targets)]
    right = torch.bincount(hits, minlength=classes).tolist()
    return [100 * r / n if n else None for r, n in zip(right, items, strict=True)]


def worst_class(logits: Tensor, targets: Tensor) -> float | None:
    """The smallest of `per_class`."""
    known = [value for value in per_class(logits, targets) if value is not None]
    return min(known, default=None)


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


def bitmask(right: Tensor) -> str:
    """(N,) bool -> base64 of one bit per item, packed as numpy.packbits does."""
    return base64.b64encode(np.packbits(right.numpy()).tobytes()).decode()


ACCURACY = [
    Measure(
        name="top1",
        summary="accuracy on the test set after the last epoch",
        unit="%",
        better="higher",
        tasks=CLASSES,
        compute=lambda finished: by_head(finished, "classification", percent_correct),
    ),
    Measure(
        name="top5",
        summary="test items whose class is among the five likeliest, of six or more",
        unit="%",
        better="higher",
        tasks=CLASSES,
        compute=top5,
    ),
    Measure(
        name="per_class_top1",
        summary="accuracy on the test items of each class, a list",
        unit="%",
        better="higher",
        tasks=CLASSES,
        compute=lambda finished: by_head(finished, "classification", per_class),
    ),
    Measure(
        name="worst_class",
        summary="accuracy on the class where it is lowest",
        unit="%",
        better="higher",
        tasks=CLASSES,
        compute=lambda finished: by_head(finished, "classification", worst_class),
    ),
]

ERRORS = [
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
]

QUALITY = [*ACCURACY, *CALIBRATION, *ERRORS, *FIDELITY, *ROBUSTNESS]
