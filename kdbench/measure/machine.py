"""The machine that times are taken on: its cores, and who else works on them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil

Reading = tuple[float, float, float]
"""Seconds: of the clock, of all work on the cores together, of this process's own."""

BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
"""Times of a core at work; `steal` is what other virtual machines took."""


def cores() -> int:
    """The cores that this process may use."""
    return len(_allowed())


def governor() -> str | None:
    """The frequency governor of the CPU's cores, None where it cannot be read."""
    found = set()
    for core in _allowed():
        path = Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor")
        try:
            found.add(path.read_text(encoding="utf-8").strip())
        except OSError:
            return None
    return "+".join(sorted(found))


class Others:
    """What other processes take of the cores, from now on.

    `read` gives a reading, or None where the system tells nothing.
    """

    def __init__(self, read: Callable[[], Reading | None] | None = None):
        self._read = read or _reading
        self._start = self._read()

    def share(self) -> float | None:
        """Of the time of the cores that this process may use, 0 to 1."""
        end = self._read()
        if self._start is None or end is None:
            return None
        wall, busy, own = (b - a for a, b in zip(self._start, end, strict=True))
        return min(1.0, max(0.0, (busy - own) / (wall * cores())))


def _reading() -> Reading | None:
    try:
        by_core = psutil.cpu_times(percpu=True)
    except (OSError, RuntimeError, NotImplementedError):
        return None
    allowed = [by_core[core] for core in _allowed() if core < len(by_core)]
    if len(allowed) < cores():  # not the cores that it was told of
        return None
    busy = sum(getattr(core, kind, 0.0) for core in allowed for kind in BUSY)
    return time.perf_counter(), busy, time.process_time()


def _allowed() -> list[int]:
    """Numbers of the cores that this process may use; all where nobody says."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
