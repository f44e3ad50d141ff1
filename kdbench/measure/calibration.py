"""Whether a student's probabilities can be believed.

All of it is None for students whose outputs are no logits of probabilities, such as a
support vector machine's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.api import Finished, Measure
from kdbench.measure.heads import CLASSES, by_head, joined, views

BINS = 15
"""Equal bins of the confidence from 0 to 1, each with its upper end."""
FARTHEST = 1e6
"""How far from the size of the logits a temperature is looked for, as a factor."""


class Bins(NamedTuple):
    """(BINS,) float64 each: items, the sum of their confidences, how many are right."""

    items: Tensor
    confidence: Tensor
    right: Tensor


def nll(logits: Tensor, targets: Tensor) -> float:
    """Mean negative log likelihood of the labels (cross-entropy), in nats."""
    return F.cross_entropy(logits.double(), targets).item()


def binned(logits: Tensor, targets: Tensor) -> Bins:
    """Items by confidence, the largest probability: bin m is ((m - 1)/15, m/15].

    Guo et al. 2017, arXiv:1706.04599, section 2.
    """
    confidence = logits.double().softmax(1).amax(1)
    ends = torch.arange(1, BINS, dtype=torch.float64) / BINS
    place = torch.bucketize(confidence, ends)
    right = (logits.argmax(1) == targets).double()
    return Bins(
        torch.bincount(place, minlength=BINS).double(),
        torch.bincount(place, confidence, BINS),
        torch.bincount(place, right, BINS),
    )


def ece(logits: Tensor, targets: Tensor) -> float:
    """Expected calibration error in percent.

    Sum over bins of their share of the items times |accuracy - mean confidence|.
    Guo et al. 2017, arXiv:1706.04599, eq. 3.
    """
    bins = binned(logits, targets)
    apart = (bins.right - bins.confidence).abs().sum()
    return 100 * (apart / bins.items.sum()).item()


def reliability(logits: Tensor, targets: Tensor) -> dict[str, list[float | None]]:
    """Items in each bin, their mean confidence and accuracy in percent.

    The last two are None for an empty bin.
    """
    bins = binned(logits, targets)
    count: list[float] = bins.items.tolist()

    def percent(total: Tensor) -> list[float | None]:
        sums = zip(total.tolist(), count, strict=True)
        return [100 * value / n if n else None for value, n in sums]

    return {
        "count": [*count],
        "confidence": percent(bins.confidence),
        "accuracy": percent(bins.right),
    }


def temperature(logits: Tensor, targets: Tensor) -> float | None:
    """The T > 0 by which logits are divided for the least NLL of these items.

    Guo et al. 2017, arXiv:1706.04599, section 4.2. The NLL is convex in 1/T; this is
    the root of its slope. None where there is none: every item is right, so that T = 0
    would be best, or the logits are no better than chance, so that it were infinite.
    """
    from scipy.optimize import brentq

    apart = logits.double() - logits.double().gather(1, targets[:, None])
    scale = apart.abs().mean()
    apart = apart / scale

    def slope(log_inverse: float) -> float:
        """Of the NLL, over 1/T; it grows with it."""
        shares = (apart * math.exp(log_inverse)).softmax(1)
        return (shares * apart).sum(1).mean().item()

    ends = (-math.log(FARTHEST), math.log(FARTHEST))
    if not slope(ends[0]) < 0 < slope(ends[1]):
        return None
    return scale.item() / math.exp(brentq(slope, *ends, xtol=1e-9))


def ece_scaled(finished: Finished) -> dict[str, float | None]:
    """ECE of the test logits over the temperature fitted on what is held out."""
    known = temperatures(finished)
    found = views(finished.task, "classification", finished.logits, finished.targets)
    scaled: dict[str, float | None] = {}
    for view in found:
        by = known[view.head.name]
        scaled[view.head.name] = by and ece(view.outputs.double() / by, view.targets)
    return scaled


def temperatures(finished: Finished) -> dict[str, float | None]:
    """Head -> temperature fitted on the validation split; None without one."""
    logits, targets = finished.validation_logits, finished.validation_targets
    if logits is None or targets is None or not finished.probabilities:
        return by_head(finished, "classification", lambda *_: None)
    return {
        view.head.name: temperature(view.outputs, view.targets)
        for view in views(finished.task, "classification", logits, targets)
    }


def _lists(finished: Finished) -> dict[str, list[float | None]]:
    if not finished.probabilities:
        return {}
    return {
        joined(head, part): values
        for head, parts in by_head(finished, "classification", reliability).items()
        for part, values in parts.items()
    }


def _of_probabilities(
    compute: Callable[[Tensor, Tensor], float],
) -> Callable[[Finished], dict[str, float | None]]:
    def measured(finished: Finished) -> dict[str, float | None]:
        known = finished.probabilities
        return by_head(
            finished,
            "classification",
            lambda logits, targets: compute(logits, targets) if known else None,
        )

    return measured


CALIBRATION = [
    Measure(
        name="nll",
        summary="mean negative log likelihood of the labels",
        unit="nats",
        better="lower",
        tasks=CLASSES,
        compute=_of_probabilities(nll),
    ),
    Measure(
        name="ece",
        summary=f"expected calibration error of the top-1 class, {BINS} equal bins",
        unit="%",
        better="lower",
        tasks=CLASSES,
        compute=_of_probabilities(ece),
    ),
    Measure(
        name="ece_scaled",
        summary=f"ece after temperature scaling on the validation split, {BINS} equal "
        "bins",
        unit="%",
        better="lower",
        tasks=CLASSES,
        compute=ece_scaled,
    ),
    Measure(
        name="temperature_scaled",
        summary="temperature of ece_scaled; neither way is better, 1 leaves all as is",
        unit="",
        better=None,
        tasks=CLASSES,
        compute=temperatures,
    ),
    Measure(
        name="calibration",
        summary=f"lists over the {BINS} bins of ece: count of items, mean confidence, "
        "accuracy",
        unit="%",
        better=None,
        tasks=CLASSES,
        compute=_lists,
    ),
]
