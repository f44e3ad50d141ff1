"""What a run leaves behind per epoch, and what it has cost so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


class Trace:
    """Curves and costs of one run, saved with it."""

    def __init__(self) -> None:
        self.curves: dict[str, list[float | None]] = {}
        self.cost = dict.fromkeys(
            ("own_s", "data_s", "teacher_s", "data_share_s", "teacher_share_s"), 0.0
        )
        counts = ("teacher_forwards", "student_epochs", "epochs_before")
        self.cost |= dict.fromkeys(counts, 0)
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, term: str, value: Tensor) -> None:
        """Add a step's term to the epoch's mean, on the device."""
        value = value.detach().double()
        known = self._sums.get(term)
        self._sums[term] = value if known is None else known + value
        self._counts[term] = self._counts.get(term, 0) + 1

    def charge(
        self, data: Sequence[tuple[float, int]], teachers: Sequence[tuple[float, int]]
    ) -> None:
        """Charge a step's data and teachers: in full, and as shared with the company.

        Each is (seconds, how many learners used it).
        """
        for name, parts in (("data", data), ("teacher", teachers)):
            self.cost[f"{name}_s"] += sum(s for s, _ in parts)
            self.cost[f"{name}_share_s"] += sum(s / users for s, users in parts)
        self.cost["teacher_forwards"] += len(teachers)

    def end_epoch(self, values: Mapping[str, float], phase: str = "") -> list[str]:
        """Close the epoch's point of every curve; returns the terms not finite.

        A phase before the last one has curves of its own: "before/PHASE/TERM".
        """
        start = f"before/{phase}/" if phase else "loss/"
        means = {
            f"{start}{k}": v.item() / self._counts[k] for k, v in self._sums.items()
        }
        curves = {
            name: curve
            for name, curve in self.curves.items()
            if name.startswith(start if phase else ("loss/", *values))
        }
        broken = []
        done = max((len(c) for c in curves.values()), default=0)
        for name, value in {**means, **values}.items():
            if not math.isfinite(value):
                broken.append(name.removeprefix(start))
            curve = curves.setdefault(name, [None] * done)
            curve.append(value if math.isfinite(value) else None)
        for curve in curves.values():
            curve += [None] * (done + 1 - len(curve))
        self.curves |= curves
        self._sums, self._counts = {}, {}
        return broken

    def state(self) -> dict[str, Any]:
        return {
            "curves": self.curves,
            "cost": self.cost,
            "sums": self._sums,
            "counts": self._counts,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.curves = state["curves"]
        self.cost |= state["cost"]
        self._sums = state["sums"]
        self._counts = state["counts"]
