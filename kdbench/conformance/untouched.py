"""What a plugin must leave as it was: generators and settings of the process."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from kdbench.conformance.checks import Broken
from kdbench.randomness import global_generators, seeded_back
from kdbench.settings import put_back, settings

UNUSUAL = 270_343
"""A seed that nobody uses."""


@dataclass
class Left:
    """What was drawn from and what was changed meanwhile, by name."""

    drawn: list[str]
    changed: list[str]

    def refuse(self, doing: str, but: Sequence[str] = ()) -> None:
        """Raise Broken where there is anything, `but` generators that may be used."""
        drawn = [name for name in self.drawn if name not in but]
        said = []
        if drawn:
            said.append(f"{doing} uses the global generator of {', '.join(drawn)}")
        if self.changed:
            said.append(f"{doing} changes {', '.join(self.changed)}")
        if said:
            raise Broken("; ".join(said))


@contextmanager
def watching() -> Iterator[Left]:
    """Note global generators that are used and settings that are changed; put back.

    The generators begin in a state in which nobody leaves them by seeding them.
    """
    left = Left([], [])
    before = settings()
    with seeded_back():
        _begin()
        states = global_generators()
        try:
            yield left
        finally:
            after = global_generators()
            left.drawn = [name for name in states if states[name] != after[name]]
            left.changed = put_back(before)


def _begin() -> None:
    torch.manual_seed(UNUSUAL)
    random.seed(UNUSUAL)
    np.random.seed(UNUSUAL)  # noqa: NPY002 - that is what plugins may use
