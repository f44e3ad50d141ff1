"""What the seeds at hand can show: differences to kd that a test would find."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from kdbench import stats
from kdbench.report import formats
from kdbench.report.analysis import Standing, standings
from kdbench.report.sections import Section
from kdbench.stats import Paired

POINTS = (0.1, 0.3, 0.5, 1.0)
SHARES = (0.01, 0.02, 0.05, 0.1)
"""Of the reference's mean, where the headline is no percentage."""
USUAL = 1
"""The place of the difference that the summary speaks of."""


@dataclass(frozen=True)
class Reach:
    """What n seeds can show of differences to `reference` ("kd" or "scratch").

    `sds` are those of the strategies' paired differences, ascending, without constant
    ones. `targets` are differences in the headline's unit; `shares` what these are of
    the reference's mean, where the headline is no percentage. Holm's correction was
    over `tests` strategies.
    """

    reference: str
    n: int
    tests: int
    sds: tuple[float, ...]
    targets: tuple[float, ...]
    shares: tuple[float, ...] = ()

    @property
    def sd(self) -> float:
        """The median."""
        return statistics.median(self.sds)

    @property
    def detectable(self) -> float:
        """The smallest difference that one test finds with 80% power."""
        return stats.detectable(self.sd, self.n) or 0.0


def gain_over(standing: Standing, name: str) -> Paired | None:
    """The paired differences to "kd" or to "scratch"."""
    return standing.over_kd if name == "kd" else standing.over_scratch


def references(found: Sequence[Standing]) -> list[str]:
    """What strategies are compared with: kd, scratch, both, or nothing."""
    return [
        name
        for name in ("kd", "scratch")
        if any(gain_over(s, name) for s in found if not s.compression)
    ]


@lru_cache(maxsize=256)
def reach(section: Section) -> Reach | None:
    """By the differences to kd, else to scratch.

    None where no strategy has two seeds in common with it, or nothing varies.
    """
    found = [s for s in standings(section) if not s.compression]
    names = references(found)
    if not names:
        return None
    name = names[0]
    gains = [gain for s in found if (gain := gain_over(s, name))]
    sds = sorted(g.sd for g in gains if g.sd and g.half_width)
    if not sds:
        return None
    targets: tuple[float, ...] = POINTS
    shares: tuple[float, ...] = ()
    if section.headline.unit != "%":
        known = section.values(section.baseline(name) or "", section.headline.name)
        mean, shares = abs(statistics.fmean(known.values())), SHARES
        targets = tuple(share * mean for share in SHARES)
    return Reach(
        reference=name,
        n=max(statistics.multimode(g.n for g in gains)),
        tests=sum(g.p_value is not None for g in gains),
        sds=tuple(sds),
        targets=targets,
        shares=shares,
    )


def sentence(section: Section) -> str:
    """What the seeds at hand can show, in words; "" where that is not known."""
    found = reach(section)
    if found is None:
        return ""
    unit = section.headline.gain_unit
    sd, least = (
        f"{formats.significant(value, 2)} {unit}".rstrip()
        for value in (found.sd, found.detectable)
    )
    text = (
        f"with {found.n} seeds and the spread seen here (median sd of the differences "
        f"to {found.reference} {sd}), one test finds a true difference of {least} 4 "
        "times in 5"
    )
    wanted = [t for t in found.targets[USUAL::-1] if 0 < t < found.detectable]
    if not wanted:
        return text
    seeds = stats.seeds_needed(found.sd, wanted[0])
    many = "more than 10,000" if seeds is None else f"{seeds:,}"
    small = f"{target(wanted[0])} {unit}".rstrip()
    return f"{text}; to see {small} takes {many} seeds"


def target(value: float) -> str:
    """A difference to find: two digits, no more zeros than it needs."""
    text = formats.significant(value, 2)
    return text.rstrip("0").rstrip(".") if "." in text else text
