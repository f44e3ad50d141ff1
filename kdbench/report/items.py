"""Strategies compared on the test items: what another test set could change."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kdbench import stats
from kdbench.records import TOP1
from kdbench.report import formats
from kdbench.report.sections import Section

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES = 1000
"""Of the bootstrap. Its ends then move by about 4% of the half-width between seeds."""


@dataclass(frozen=True)
class Items:
    """One strategy against another on the same test items, over `seeds` seeds.

    `mean` and the ends `low` and `high` of its 95% bootstrap interval are in points,
    positive where the strategy is better. In `better` and `worse` seeds McNemar's p is
    below 0.05 in that direction. `only_own` and `only_other` count, over all seeds, the
    items that one alone gets right.
    """

    seeds: int
    mean: float
    low: float
    high: float
    better: int
    worse: int
    only_own: int
    only_other: int


@dataclass(frozen=True)
class Bits:
    """Which test items were right: label -> seed -> (items,), unpacked once.

    `misfits` names the runs whose bits are not those of the test set.
    """

    right: dict[str, dict[int, NDArray[np.bool_]]] = field(default_factory=dict)
    misfits: tuple[str, ...] = ()

    def compare(self, label: str, other: str | None) -> Items | None:
        """Over the seeds with the items of both; None without any."""
        import numpy as np

        own, others = self.right.get(label, {}), self.right.get(other or "", {})
        seeds = [seed for seed in own if seed in others]
        if not seeds:
            return None
        tests = [stats.mcnemar(own[seed], others[seed]) for seed in seeds]
        total = np.zeros(len(own[seeds[0]]), np.int32)  # small: pages cost time
        for seed in seeds:
            total += own[seed]
            total -= others[seed]
        differences = total.astype(np.float64) * (100 / len(seeds))
        low, high = stats.bootstrap_items(differences, resamples=RESAMPLES)
        clear = [test for test in tests if test.p_value < formats.SIGNIFICANT]
        return Items(
            seeds=len(seeds),
            mean=float(differences.mean()),
            low=low,
            high=high,
            better=sum(test.only_a > test.only_b for test in clear),
            worse=sum(test.only_a < test.only_b for test in clear),
            only_own=sum(test.only_a for test in tests),
            only_other=sum(test.only_b for test in tests),
        )


def bits(section: Section) -> Bits:
    """The items of every finished run that is not compressed.

    Empty where the headline is not top-1. The test set has as many items as most runs
    have; the bits of others, and bits that are not of so many, are left out.
    """
    records = [
        record
        for record in section.records
        if record.status == "finished" and record.correct and not record.run.compression
    ]
    sizes = Counter(record.test_items for record in records if record.test_items)
    if section.headline.name != TOP1.name or not sizes:
        return Bits()
    items = sizes.most_common(1)[0][0]
    right: dict[str, dict[int, NDArray[np.bool_]]] = {}
    misfits = []
    for record in records:
        label, seed = record.run.label, record.run.seed
        try:
            if record.test_items != items:
                raise ValueError("another number of test items")
            found = stats.unpack(record.correct or "", items)
        except ValueError:
            misfits.append(f"{label} (seed {seed})")
        else:
            right.setdefault(label, {})[seed] = found
    return Bits(right, tuple(misfits))
