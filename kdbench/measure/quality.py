"""Quality of a student on the whole test set, from its logits."""

from __future__ import annotations

import base64

import numpy as np
from torch import Tensor

from kdbench.api import Finished, Measure


def top1(finished: Finished) -> float:
    """Share of test items whose largest logit is the label's, in percent."""
    return 100 * correct(finished.logits, finished.targets).double().mean().item()


def agreement(finished: Finished) -> float | None:
    """Share of test items on which student and teacher say the same class, percent.

    Fidelity is not accuracy: Stanton et al. 2021, arXiv:2106.05945, eq. 4.
    """
    if finished.teacher_logits is None:
        return None
    same = finished.logits.argmax(1) == finished.teacher_logits.argmax(1)
    return 100 * same.double().mean().item()


def correct(logits: Tensor, targets: Tensor) -> Tensor:
    """(N,) bool: which items are classified rightly."""
    return logits.argmax(1) == targets


def bitmask(right: Tensor) -> str:
    """(N,) bool -> base64 of one bit per item, packed as numpy.packbits does."""
    return base64.b64encode(np.packbits(right.numpy()).tobytes()).decode()


QUALITY = [
    Measure(
        name="top1",
        summary="accuracy on the test set after the last epoch",
        unit="%",
        better="higher",
        compute=top1,
    ),
    Measure(
        name="agreement",
        summary="test items on which student and teacher say the same class",
        unit="%",
        better="higher",
        compute=agreement,
    ),
]
