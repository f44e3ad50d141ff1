"""What a group's training loop takes as a whole, charged to who is in it.

Its wall-clock stands on every run in full, with the number of those beside it. Energy
is divided by the time that was spent on each, and what nobody was charged with (the
loop's own work) in equal parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

import torch

from kdbench.engine.energy import meter_for
from kdbench.engine.trace import Trace

READ_S = 10.0
"""How often a counter of energy is read: before it can have gone all the way round."""


class Account:
    """The account of one training loop, from when it is made."""

    def __init__(self, device: torch.device, traces: Iterable[Trace]):
        self._meter = meter_for(device)
        self._joules = 0.0
        self._ticked = self._charged = self._read = perf_counter()
        self._known = {trace: (trace.spent, 0.0) for trace in traces}
        """By run what was spent on it when it was last charged, and how long it was in
        the loop since."""

    def tick(self, there: Sequence[Trace]) -> None:
        """The time since the last call was theirs."""
        now = perf_counter()
        passed, self._ticked = now - self._ticked, now
        for trace in there:
            trace.cost["company"] = max(trace.cost["company"], len(there) - 1)
            trace.cost["loop_s"] += passed
            spent, since = self._known[trace]
            self._known[trace] = spent, since + passed
        if now - self._read >= READ_S:
            self._take_reading(now)

    def _take_reading(self, now: float) -> None:
        self._read = now
        self._joules += self._meter.spent() if self._meter else math.nan

    def charge(self) -> None:
        """Divide what was used since the last call; times have been settled."""
        now = perf_counter()
        self._take_reading(now)
        passed, self._charged = now - self._charged, now
        there = [trace for trace, (_, since) in self._known.items() if since]
        spent = {trace: trace.spent - self._known[trace][0] for trace in there}
        whole = sum(spent.values())
        for trace in there:
            share = spent[trace] / whole if whole > 0 else 1 / len(there)
            trace.cost["energy_j"] += share * self._joules
            trace.spend("loop_rest", (passed - whole) / len(there))
            self._known[trace] = trace.spent, 0.0
        self._joules = 0.0


@contextmanager
def accounted(device: torch.device, traces: Iterable[Trace]) -> Iterator[Account]:
    """An account of what is done inside; what breaks it off is charged, too."""
    account = Account(device, traces)
    try:
        yield account
    except BaseException:
        account.charge()
        raise
