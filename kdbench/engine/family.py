"""Settings of one strategy whose losses are computed as one, for stacked students.

A grid of temperatures and weights does the same to every student's slice, with other
numbers. `torch.vmap` does it to all slices at once: asking for such small operations
takes far longer than they do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from kdbench.api import Outputs, Strategy
from kdbench.engine.feed import Step
from kdbench.engine.learner import Learner
from kdbench.engine.teacher import Ask


def kin(learner: Learner) -> object | None:
    """What is equal for all of a family; None for a learner that has to be by itself.

    Equal are the strategy and all of its settings but the plain numbers, which must not
    change over the training. Adapters and labels of its own are not for families.
    """
    strategy = learner.strategy
    if learner.adapters is not None or not dataclasses.is_dataclass(strategy):
        return None
    if strategy.label_fraction < 1:
        return None
    if strategy.at(0.0).values() != strategy.at(1.0).values():
        return None
    settings = _settings(strategy)
    fixed = [(k, v) for k, v in settings.items() if not isinstance(v, float)]
    numbers = settings.keys() - {name for name, _ in fixed}
    return (type(strategy), repr(fixed), *sorted(numbers), learner.asks, learner.stage)


def _settings(strategy: Strategy) -> dict[str, Any]:
    return {name: getattr(strategy, name) for name in strategy.parameters()}


class Family:
    """Learners of one kin, in their order in the stack."""

    def __init__(self, learners: Sequence[Learner]):
        self.learners = learners
        self._first = learners[0]
        settings = [_settings(x.strategy) for x in learners]
        device = self._first.feed.device
        self._numbers = {
            name: torch.tensor([own[name] for own in settings], device=device)
            for name, value in settings[0].items()
            if isinstance(value, float) and len({own[name] for own in settings}) > 1
        }
        self._sums: dict[str, Tensor] = {}

    def terms(
        self,
        step: Step,
        teachers: Mapping[Ask, Outputs],
        slices: Mapping[int, Tensor],
        taps: Mapping[str, int],
    ) -> dict[str, Tensor]:
        """Every term of all, (K,) each, from slices (K, B, D) by place.

        Raises whatever a strategy raises that cannot be computed so: one that looks at
        its numbers in an `if`, say.
        """
        first = self._first
        none = dict.fromkeys(first.sees, ())

        def of_one(
            mine: Mapping[int, Tensor], numbers: Mapping[str, Tensor]
        ) -> dict[str, Tensor]:
            # the live classifier is the first one's alone: there is none
            features = {tap: mine[at] for tap, at in taps.items()}
            outputs = Outputs(mine[max(mine)], MappingProxyType(features))
            students = {view: () if view else (outputs,) for view in first.sees}
            strategy = _with(first.strategy, numbers)
            return first.terms(step, teachers, students, none, strategy=strategy)

        copies = {at: mine.clone() for at, mine in slices.items()}
        found: dict[str, Tensor] = torch.vmap(of_one)(copies, self._numbers)
        if any(copy._version for copy in copies.values()):
            raise TypeError("it writes to a student's answer")
        if not all(value.dim() == 1 for value in found.values()):
            raise TypeError("a term is no scalar")
        return found

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add a step's terms to the means of the epoch."""
        for name, value in terms.items():
            known = self._sums.get(name)
            if known is None:
                known = torch.stack(
                    [x.trace.sum_of(name).to(value.device) for x in self.learners]
                )
            self._sums[name] = known + value.detach().double()
        for learner in self.learners:
            learner.trace.count(terms)

    def hand_over(self) -> None:
        """Give the traces their sums, before they are read."""
        for name, sums in self._sums.items():
            for learner, value in zip(self.learners, sums, strict=True):
                learner.trace.put_sum(name, value)
        self._sums.clear()


def _with(strategy: Strategy, numbers: Mapping[str, Tensor]) -> Strategy:
    """The strategy with tensors for numbers, which its own checks could not look at."""
    made = object.__new__(type(strategy))
    made.__dict__.update(strategy.__dict__, **numbers)
    return made
