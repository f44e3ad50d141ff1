"""Paired measurements: every side in turn and back again, disturbed pairs once more.

Between them the machine is the same, so that a ratio of two sides holds where neither
number alone would.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workload import Workload

DISTURBED = 1.15
"""A side that takes so many times as long in one half of a pair as in the other has
seen other work on the machine."""

Spent = Mapping[str, float]
"""What a visit measured, such as seconds per step; "total" is held against the other
half's."""


@dataclass(frozen=True)
class Pairs:
    """What each side spent in each pair: the mean of its two halves."""

    kept: list[dict[str, Spent]]
    repeated: int
    """Disturbed pairs that were measured again."""
    disturbed: int
    """Disturbed pairs that were kept, because the machine did not come to rest."""

    def median(self, number: Callable[[dict[str, Spent]], float]) -> float:
        """The median over pairs of a number computed from one pair."""
        return statistics.median(number(pair) for pair in self.kept)


def measured(sides: Mapping[str, Callable[[], Spent]], pairs: int) -> Pairs:
    """Visit all sides in order, then in reverse, `pairs` times, after a warm-up.

    A disturbed pair is measured again, at most as often as there are pairs. Where there
    still are too few, the least disturbed ones are kept and counted.
    """
    for visit in sides.values():
        visit()
    taken: list[tuple[float, dict[str, Spent]]] = []
    for _ in range(2 * pairs):
        there = {name: visit() for name, visit in sides.items()}
        back = {name: sides[name]() for name in reversed(sides)}
        worst = max(_apart(there[name]["total"], back[name]["total"]) for name in sides)
        taken.append((worst, {k: _mean(there[k], back[k]) for k in sides}))
        if sum(apart <= DISTURBED for apart, _ in taken) == pairs:
            break
    best = sorted(taken, key=lambda one: one[0])[:pairs]
    return Pairs(
        kept=[pair for _, pair in best],
        repeated=len(taken) - len(best),
        disturbed=sum(apart > DISTURBED for apart, _ in best),
    )


def _apart(one: float, other: float) -> float:
    return max(one / other, other / one)


def _mean(one: Spent, other: Spent) -> Spent:
    return {name: (one[name] + other[name]) / 2 for name in one}


class Process:
    """A side in processes of its own (`side.py`), which share its methods evenly."""

    def __init__(self, work: Workload, processes: int = 1):
        environment = {**os.environ, "OMP_NUM_THREADS": str(work.threads)}
        script = Path(__file__).with_name("side.py")
        self._children = [
            subprocess.Popen(
                [sys.executable, str(script), json.dumps(part.plain())],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for part in _parts(work, processes)
        ]

    def ask(self, method: str, **arguments: Any) -> list[dict[str, float]]:
        """Have all of them do this at the same time, and wait for their answers."""
        for child in self._children:
            assert child.stdin is not None
            child.stdin.write(json.dumps([method, arguments]) + "\n")
            child.stdin.flush()
        answers = []
        for child in self._children:
            assert child.stdout is not None
            line = child.stdout.readline()
            if not line:
                raise RuntimeError(f"a side of the benchmark ended: {child.wait()}")
            answers.append(json.loads(line))
        return answers

    def visit(self, method: str = "visit", **arguments: Any) -> Spent:
        """What one process spent; of several, what the slower one did."""
        answers = self.ask(method, **arguments)
        return max(answers, key=lambda spent: spent["total"])

    def close(self) -> None:
        """End it, whatever it is doing: the other one may have failed."""
        for child in self._children:
            child.kill()
            child.communicate()


def _parts(work: Workload, processes: int) -> list[Workload]:
    plain = work.plain()
    return [
        Workload(**{**plain, "methods": work.methods[k::processes]})
        for k in range(processes)
    ]


@contextmanager
def started(works: Sequence[Workload], processes: int = 1) -> Iterator[list[Process]]:
    """A side for each workload; they end with the block."""
    with ExitStack() as stack:
        sides = []
        for work in works:
            side = Process(work, processes)
            stack.callback(side.close)
            sides.append(side)
        yield sides
