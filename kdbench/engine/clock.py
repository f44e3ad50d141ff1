"""How long parts of the work take: by the clock, and on a GPU by its own events.

A GPU works behind its program, so that the clock would measure how long it takes to ask
for the work. Events are read when an epoch ends: nobody waits for the GPU before that.
"""

from __future__ import annotations

from time import perf_counter
from typing import Protocol

import torch


class Event(Protocol):
    """A place in a GPU's stream of work."""

    def record(self) -> None: ...

    def synchronize(self) -> None: ...

    def elapsed_time(self, end_event: Event) -> float: ...


Moment = float | Event


class Span:
    """The time between two events; `seconds` waits until the second has passed."""

    def __init__(self, start: Event, end: Event):
        self._start = start
        self._end = end

    @property
    def seconds(self) -> float:
        self._end.synchronize()
        return self._start.elapsed_time(self._end) / 1000


Spent = float | Span
"""Seconds, or what will tell them later."""


class Clock:
    """The clock of a device."""

    def __init__(self, device: torch.device):
        self._kind = device.type

    def now(self) -> Moment:
        """This moment, in the order of the device's work."""
        if self._kind not in ("cuda", "mps"):
            return perf_counter()
        events = torch.cuda if self._kind == "cuda" else torch.mps.event
        event: Event = events.Event(enable_timing=True)
        event.record()
        return event

    def since(self, start: Moment) -> Spent:
        """The time from `start` until now."""
        return spent(start, self.now())


def spent(start: Moment, end: Moment) -> Spent:
    """The time between two moments of one clock."""
    if isinstance(start, float) or isinstance(end, float):
        assert isinstance(start, float)  # noqa: S101 - of one clock
        assert isinstance(end, float)  # noqa: S101
        return end - start
    return Span(start, end)


def seconds(time: Spent) -> float:
    return time if isinstance(time, float) else time.seconds
