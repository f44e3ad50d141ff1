"""When each phase of a strategy takes place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kdbench.api import Phase
from kdbench.records import Recipe


class Schedule:
    """When each phase of a strategy is: the last one ends with the recipe's epochs.

    Those before it have negative epochs, so that all strategies see the same batches in
    the last one, and teachers are shared in the earlier ones, too.
    """

    def __init__(self, phases: Sequence[Phase], recipe: Recipe, students: int = 1):
        """Lay out the phases; `passes` is how often the recipe's epochs are trained.

        Counted are all of the strategy's `students` that learn.
        """
        self._phases: dict[int, Phase] = {}
        epochs = 0
        start = recipe.epochs
        for phase in reversed(phases):
            learning = students if phase.students is None else len(phase.students)
            epochs += phase.length(recipe) * learning
            if phase.length(recipe):  # one of no epochs is left out
                start -= phase.length(recipe)
                self._phases[start] = replace(phase)  # one given twice is two
        self.first = start
        self.passes = epochs / recipe.epochs

    def at(self, epoch: int) -> Phase:
        """The phase that an epoch belongs to."""
        return self._phases[max(s for s in self._phases if s <= epoch)]

    def start_of(self, phase: Phase) -> int:
        """The phase's first epoch."""
        return next(s for s, p in self._phases.items() if p is phase)

    def starts_at(self, epoch: int) -> bool:
        """Whether a phase begins with this epoch."""
        return epoch in self._phases

    def is_last(self, epoch: int) -> bool:
        """Whether an epoch belongs to the last phase."""
        return epoch >= max(self._phases)
