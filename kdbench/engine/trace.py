"""What a run leaves behind per epoch, and what it has cost so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kdbench.engine.clock import Clock, Moment, Spent, seconds

PARTS = ("student", "adapters", "loss", "backward", "optimiser")
"""What a learner's own time is made of; the rest of it is the engine's."""

GRAPH = "graph"
"""The part that replays of a CUDA graph take: student, adapters, loss and backward."""

BESIDE = ("evaluation", "checkpoint")
"""What is no training, but takes its time in the training loop."""

PEAK = "peak_memory_bytes"
SUMMED = (*BESIDE, "loop", "loop_rest")
LATER = (*(f"{part}_s" for part in SUMMED), "adapters_s", "energy_j", "company")
LATER += (PEAK,)
"""Costs that checkpoints of earlier versions lack."""


class Timed:
    """A stretch of work that is charged to a part of a run's cost."""

    def __init__(self, trace: Trace, part: str):
        self._trace = trace
        self._part = part
        self._range: torch.profiler.record_function | None = None

    def __enter__(self) -> None:
        if self._trace.profiled:  # it costs more than taking the time
            name = f"{self._trace.title}: {self._part}"
            self._range = torch.profiler.record_function(name)
            self._range.__enter__()  # type: ignore[no-untyped-call]
        self._start: Moment = self._trace.clock.now()

    def __exit__(self, *error: Any) -> None:
        self._trace.spend(self._part, self._trace.clock.since(self._start))
        if self._range:
            self._range.__exit__(*error)


class Trace:
    """Curves and costs of one run, saved with it."""

    def __init__(
        self, clock: Clock, title: str = "", parts: Sequence[str] = ()
    ) -> None:
        """`parts` are those of `PARTS` whose times are taken, by this clock."""
        self.title = title
        self.clock = clock
        self.phase = ""
        self.profiled = False
        self.times: dict[str, dict[str, float]] = {}
        self.paid: list[int] = []
        """The teachers whose pass over the training set is in the cost."""
        self.curves: dict[str, list[float | None]] = {}
        self.cost = dict.fromkeys(
            ("own_s", "data_s", "teacher_s", "data_share_s", "teacher_share_s"), 0.0
        )
        self.cost |= dict.fromkeys((f"{part}_s" for part in parts), 0.0)
        self.cost |= dict.fromkeys((*(f"{part}_s" for part in SUMMED), "energy_j"), 0.0)
        self._parts = [f"{part}_s" for part in parts]
        counts = ("teacher_forwards", "student_epochs", "epochs_before", "company")
        self.cost |= dict.fromkeys(counts, 0)
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self.source: Callable[[], None] | None = None
        """Called before the sums are read, by whoever keeps them meanwhile."""
        self._unread: list[tuple[str, str, Spent, float]] = []

    def add(self, term: str, value: Tensor) -> None:
        """Add a step's term to the epoch's mean, on the device."""
        value = value.detach().to(torch.float64, copy=True)  # a graph reuses its own
        known = self._sums.get(term)
        self._sums[term] = value if known is None else known + value
        self._counts[term] = self._counts.get(term, 0) + 1

    def sum_of(self, term: str) -> Tensor:
        """The epoch's sum so far, on the device; 0 where there is none."""
        return self._sums.get(term, torch.zeros((), dtype=torch.float64))

    def put_sum(self, term: str, value: Tensor) -> None:
        """Replace the epoch's sum; `count` counts its steps."""
        self._sums[term] = value.clone()

    def count(self, terms: Iterable[str]) -> None:
        for term in terms:
            self._counts[term] = self._counts.get(term, 0) + 1

    def spend(self, part: str, time: Spent, factor: float = 1.0) -> None:
        """Charge `factor` of this time to a part of the cost ("own", "data", ...)."""
        if isinstance(time, float):
            self._spend(self.phase, part, factor * time)
        else:  # a GPU's: read when the epoch ends
            self._unread.append((self.phase, part, time, factor))

    def _spend(self, phase: str, part: str, time: float) -> None:
        self.cost[f"{part}_s"] += time
        times = self.times.setdefault(phase, {})
        times[part] = times.get(part, 0.0) + time

    def settle(self) -> None:
        """Read the times that a GPU still had to tell, and sums kept elsewhere."""
        if self.source:
            self.source()
        for phase, part, time, factor in self._unread:
            self._spend(phase, part, factor * seconds(time))
        self._unread.clear()

    def timed(self, part: str) -> Timed:
        """Charge what is done inside a `with` to this part."""
        return Timed(self, part)

    def charge(self, part: str, time: Spent, users: int = 1) -> None:
        """Charge "data" or "teacher": in full, and as shared among its users."""
        self.spend(part, time)
        self.spend(f"{part}_share", time, 1 / users)

    def end_epoch(self, values: Mapping[str, float], phase: str = "") -> list[str]:
        """Close the epoch's point of every curve; returns the terms not finite.

        A phase before the last one has curves of its own: "before/PHASE/TERM".
        """
        self.settle()
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

    @property
    def spent(self) -> float:
        """Seconds of the loop that were spent on this run; of what is shared its share.

        What is unknown, because an earlier version did not take it, is left out.
        """
        parts = ("own", "data_share", "teacher_share", *BESIDE)
        known = [self.cost[f"{part}_s"] for part in parts]
        return sum(value for value in known if not math.isnan(value))

    def holds(self, size: int) -> None:
        """Take down how many bytes a step held at its peak."""
        self.cost[PEAK] = max(self.cost.get(PEAK, 0), size)

    def bill(self) -> dict[str, float | None]:
        """The cost as a record has it, None for what is not known.

        "engine_s" is what is left of its own time, and of the loop's by equal shares.
        Where graphs were replayed, what adapters took is not known apart.
        """
        self.settle()
        cost = dict(self.cost)
        shared = cost.pop("data_share_s") + cost.pop("teacher_share_s")
        rest = cost.pop("loop_rest_s")
        own = cost["own_s"] + (0.0 if math.isnan(rest) else rest)
        cost["train_s"] = own + cost["data_s"] + cost["teacher_s"]
        cost["train_shared_s"] = own + shared
        if self._parts:
            parts = [cost[name] for name in self._parts]
            known = sum(value for value in parts if not math.isnan(value))
            cost["engine_s"] = max(cost["own_s"] - known + rest, 0.0)  # nan stays nan
        if cost.get(f"{GRAPH}_s"):
            adapters, cost["adapters_s"] = cost["adapters_s"], math.nan
            cost["loss_s"] += 0.0 if math.isnan(adapters) else adapters
        else:
            cost.pop(f"{GRAPH}_s", None)
        cost["energy_j"] = cost["energy_j"] or math.nan
        unknown = (*(f"{part}_s" for part in PARTS), "engine_s", PEAK)
        return dict.fromkeys(unknown) | {
            name: None if math.isnan(value) else value for name, value in cost.items()
        }

    def state(self) -> dict[str, Any]:
        self.settle()
        return {
            "curves": self.curves,
            "cost": self.cost,
            "times": self.times,
            "paid": self.paid,
            "sums": self._sums,
            "counts": self._counts,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.curves = state["curves"]
        self.cost |= state["cost"]
        if "loop_s" not in state["cost"]:  # of an earlier version
            self.cost |= dict.fromkeys(LATER, math.nan)
        self.times = state["times"]
        self.paid = state["paid"]
        self._sums = state["sums"]
        self._counts = state["counts"]
