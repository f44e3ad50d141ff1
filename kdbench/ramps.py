"""Hyper-parameters that change while the training progresses: dynamic distillation."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
FORM = re.compile(
    rf"\s*({NUMBER})\s*->\s*({NUMBER})\s*"
    rf"(?:@\s*({NUMBER})\s*\.\.\s*({NUMBER})\s*)?(?::\s*(\w+)\s*)?"
)


@dataclass(frozen=True)
class Ramp:
    """A number that goes from `start` to `end` between two shares of the training.

    Before `begin` it is `start`, after `until` it is `end`; between them it follows a
    line, or half a cosine.
    """

    start: float
    end: float
    begin: float = 0.0
    until: float = 1.0
    shape: str = "linear"

    def __str__(self) -> str:
        """As it is written: `4->1@0..0.5:cosine`."""
        text = f"{self.start:.15g}->{self.end:.15g}"
        if (self.begin, self.until) != (0, 1):
            text += f"@{self.begin:.15g}..{self.until:.15g}"
        return text if self.shape == "linear" else f"{text}:{self.shape}"

    def at(self, progress: float) -> float:
        """The number at this share of the training, 0 to 1."""
        gone = (progress - self.begin) / (self.until - self.begin)
        gone = min(1.0, max(0.0, gone))
        if self.shape == "cosine":
            gone = 0.5 * (1 - math.cos(math.pi * gone))
        return self.start + (self.end - self.start) * gone


def parse_ramp(text: object) -> Ramp | None:
    """`4->1`, `0->0.9@0..0.2` or `4->1:cosine`; None for what is not of this form.

    Raises ValueError for a ramp that cannot be.
    """
    match = FORM.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    start, end, begin, until, shape = match.groups()
    ramp = Ramp(
        float(start),
        float(end),
        float(begin or 0),
        float(until or 1),
        shape or "linear",
    )
    if not 0 <= ramp.begin < ramp.until <= 1:
        raise ValueError(
            f"{text}: shares of the training must rise within 0..1, such as @0..0.2"
        )
    if not (math.isfinite(ramp.start) and math.isfinite(ramp.end)):
        raise ValueError(f"{text}: both ends must be finite")
    if ramp.shape not in ("linear", "cosine"):
        raise ValueError(f"{text}: a ramp is linear or cosine, not {ramp.shape!r}")
    return ramp
