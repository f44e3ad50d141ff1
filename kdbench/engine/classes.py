"""Which items of a training set are of one class."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


class Classes:
    """The items of (N,) class indices, class by class."""

    def __init__(self, targets: Tensor):
        self._targets = targets
        self._order = torch.argsort(targets, stable=True)
        self._counts = torch.bincount(targets)
        self._begins = self._counts.cumsum(0) - self._counts
        self._ranks = torch.empty_like(self._order)
        places = torch.arange(len(targets))
        self._ranks[self._order] = places - self._begins[targets[self._order]]

    def others(self, index: Tensor, generator: Generator) -> Tensor:
        """For each of (B,) items another one of its class, all alike probable.

        The only item of a class is given itself.
        """
        label = self._targets[index]
        count = self._counts[label]
        chance = torch.rand(len(index), generator=generator, dtype=torch.float64)
        further = 1 + (chance * (count - 1)).long()
        return self._order[self._begins[label] + (self._ranks[index] + further) % count]
