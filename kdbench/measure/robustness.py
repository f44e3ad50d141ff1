"""Accuracy on corrupted test images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from kdbench.api import Finished, Measure
from kdbench.engine.streams import generator
from kdbench.measure.heads import CLASSES, joined, views

SEVERITIES = {
    "noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
}
"""Severities 1 to 5, those of CIFAR-10-C.

Of noise the standard deviation, as a share of the range from black to white; of blur
that of the Gaussian, in pixels; of contrast what is left of each distance to the mean.
"""


def change(kind: str, severity: int) -> Callable[[Tensor], Tensor]:
    """What corrupts batches (B, C, H, W), in order, uint8 or float from 0 to 1.

    Hendrycks & Dietterich 2019, arXiv:1903.12261: gaussian noise; gaussian blur with
    the border's pixels repeated, cut off at four deviations; contrast against the mean
    of each image and channel. Then clipped, and uint8 rounded to whole levels (their
    code cuts off). The noise is a function of the severity and of the item's place.
    Raises ValueError for what is no image.
    """
    amount = SEVERITIES[kind][severity - 1]
    stream = generator("corruption", kind, severity)

    def changed(images: Tensor) -> Tensor:
        white = _white(images)
        values = images.float()
        if kind == "noise":
            values = values + amount * white * _drawn(values, stream)
        elif kind == "blur":
            values = blurred(values, amount)
        else:
            mean = values.mean((2, 3), keepdim=True)
            values = mean + amount * (values - mean)
        values = values.clamp(0, white)
        return (values if white == 1 else values.round()).to(images.dtype)

    return changed


class NoImages(Exception):
    """These inputs are not (B, C, H, W) in uint8, or float from 0 to 1."""


def _white(images: Tensor) -> int:
    """The largest value that a pixel may have. Raises NoImages."""
    if images.dim() == 4 and images.dtype == torch.uint8:
        return 255
    if images.dim() == 4 and images.is_floating_point():
        low, high = images.aminmax()
        if low >= 0 and high <= 1:
            return 1
    raise NoImages


def _drawn(values: Tensor, stream: Generator) -> Tensor:
    """Drawn on the CPU, so that every device sees the same noise."""
    return torch.randn(values.shape, generator=stream).to(values.device)


def blurred(values: Tensor, deviation: float) -> Tensor:
    """(B, C, H, W) convolved with a Gaussian of this deviation in pixels.

    As sums of shifted copies, since a GPU's convolution may round to fewer bits.
    """
    reach = int(4 * deviation + 0.5)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-offsets.square() / (2 * deviation**2))
    shares: list[float] = (weights / weights.sum()).tolist()
    for dim, border in ((2, (0, 0, reach, reach)), (3, (reach, reach, 0, 0))):
        padded = F.pad(values, border, mode="replicate")
        size = values.shape[dim]
        values = torch.zeros_like(values)
        for start, share in enumerate(shares):
            values += share * padded.narrow(dim, start, size)
    return values


def corruption(finished: Finished) -> dict[str, float | list[float | None]] | None:
    """Head -> top-1 in percent: the mean, that of each kind, and by severity."""
    try:
        return None if finished.answers is None else _corrupted(finished)
    except NoImages:
        return None


def _corrupted(finished: Finished) -> dict[str, float | list[float | None]]:
    assert finished.answers is not None  # noqa: S101 - narrowed by the caller
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for kind, amounts in SEVERITIES.items():
        for severity in range(1, len(amounts) + 1):
            logits = finished.answers(change(kind, severity))
            heads = views(finished.task, "classification", logits, finished.targets)
            for view in heads:
                right = (view.outputs.argmax(1) == view.targets).double().mean()
                found[view.head.name][kind].append(100 * right.item())
    told: dict[str, float | list[float | None]] = {}
    for head, kinds in found.items():
        told[head] = fmean(value for values in kinds.values() for value in values)
        for kind, values in kinds.items():
            told[joined(head, kind)] = fmean(values)
            told[joined(head, kind, "by_severity")] = [*values]
    return told


ROBUSTNESS = [
    Measure(
        name="corruption",
        summary="top-1 on test images with noise, blur or less contrast, the mean over "
        "three kinds and five severities",
        unit="%",
        better="higher",
        tasks=CLASSES,
        optional=True,
        compute=corruption,
    ),
]
