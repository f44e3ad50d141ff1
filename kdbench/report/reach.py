"""What the seeds at hand can show: differences that a test would find."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from kdbench import stats
from kdbench.report import formats
from kdbench.report.analysis import Standing, standings
from kdbench.report.sections import Section
from kdbench.stats import Paired
from kdbench.stats.power import LEAST_LEVEL

POINTS = (0.1, 0.3, 0.5, 1.0)
SHARES = (0.01, 0.02, 0.05, 0.1)
"""Of the reference's mean, where the headline is no percentage."""
USUAL = 1
"""The place of the difference that the summary speaks of."""
CONSTANT = (
    "± 0 is no certainty: the sd of what is exactly the same in every seed is 0 as "
    "estimated from these few, and another seed may differ. Of such a difference, if "
    "it is not 0, the t-test is not defined and p is '-'."
)


@dataclass(frozen=True)
class Reach:
    """What n seeds can show of differences to `reference` ("kd" or "scratch").

    `sds` are those of the strategies' paired differences, ascending, without constant
    ones; n, 2 or more, is the number of seeds of most of them. `targets` are
    differences in the headline's unit; `shares` what these are of the reference's mean,
    where the headline is no percentage. Holm's correction was over `tests` strategies.
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


@dataclass(frozen=True)
class Lead:
    """What tells a strategy from the best: tests of `pairs`, most over n >= 2 seeds.

    `sd` is the median of those of the differences to the best.
    """

    n: int
    pairs: int
    sd: float


def step(tests: int) -> float:
    """The level of the first and strictest Holm step."""
    return formats.SIGNIFICANT / max(1, tests)


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
    varied = _varied(gains)
    if not varied:
        return None
    targets: tuple[float, ...] = POINTS
    shares: tuple[float, ...] = ()
    if section.headline.unit != "%":
        known = section.values(section.baseline(name) or "", section.headline.name)
        mean, shares = abs(statistics.fmean(known.values())), SHARES
        targets = tuple(share * mean for share in SHARES)
    return Reach(
        reference=name,
        n=_usual(varied),
        tests=sum(g.p_value is not None for g in gains),
        sds=_sds(varied),
        targets=targets,
        shares=shares,
    )


def _varied(gains: Iterable[Paired]) -> list[Paired]:
    """Those that have an sd: of two seeds or more, and not always the same."""
    return [gain for gain in gains if gain.sd and gain.half_width]


def _usual(gains: Iterable[Paired]) -> int:
    """The number of seeds of most of them."""
    return max(statistics.multimode(gain.n for gain in gains))


def _sds(gains: Iterable[Paired]) -> tuple[float, ...]:
    return tuple(sorted(gain.sd for gain in gains if gain.sd))


@lru_cache(maxsize=256)
def lead(section: Section) -> Lead | None:
    """By the tests of all pairs; None where no difference to the best varies."""
    name = section.headline.name
    found = [s for s in standings(section) if s.quality and not s.compression]
    values = {s.label: section.values(s.label, name) for s in found}
    best = max(found, key=lambda s: s.oriented).label if found else ""
    pairs, to_best = 0, []
    for a, b in combinations(values, 2):
        common = values[a].keys() & values[b].keys()
        if common:
            ours, theirs = ([values[k][s] for s in common] for k in (a, b))
            gain = stats.paired(ours, theirs)
            pairs += gain.p_value is not None
            to_best += [gain] * (best in (a, b))
    varied = _varied(to_best)
    if not varied:
        return None
    return Lead(_usual(varied), pairs, statistics.median(_sds(varied)))


def lead_needed(section: Section) -> str:
    """The lead over another that makes it be told from the best; "" if not known."""
    found = lead(section)
    if found is None:
        return ""
    level = step(found.pairs)
    if level < LEAST_LEVEL:
        least = stats.detectable(1.0, found.n, level=LEAST_LEVEL)
        shown = f"more than {formats.significant(least, 2)} times its sd"
    else:
        least = stats.detectable(found.sd, found.n, level=level)
        shown = f"about {formats.significant(least, 2)} {section.headline.gain_unit}"
    return f"only a lead of {shown.rstrip()} is found 4 times in 5"


def lead_note(section: Section) -> str:
    """How much a † says, with how it is known; "" where that is not known."""
    found = lead(section)
    if found is None:
        return ""
    sd = f"{formats.significant(found.sd, 2)} {section.headline.gain_unit}"
    many = f"/{found.pairs:,}" if found.pairs > 1 else ""
    return (
        f"With {found.n} seeds and {found.pairs:,} "
        f"{'pair' if found.pairs == 1 else 'pairs'} the first Holm step is p < "
        f"{formats.SIGNIFICANT}{many}: {lead_needed(section)} (median sd of the "
        f"differences to the best: {sd.rstrip()}), so † says little of smaller ones."
    )


def sentence(section: Section) -> str:
    """What the seeds at hand can show, in words; "" where that is not known."""
    found = reach(section)
    least = stats.detectable(found.sd, found.n) if found else None
    if found is None or least is None:
        return ""
    unit = section.headline.gain_unit
    sd, shown = (
        f"{formats.significant(value, 2)} {unit}".rstrip()
        for value in (found.sd, least)
    )
    text = (
        f"with {found.n} seeds and the spread seen here (median sd of the differences "
        f"to {found.reference} {sd}), one test finds a true difference of {shown} 4 "
        "times in 5"
    )
    wanted = [t for t in found.targets[USUAL::-1] if 0 < t < least]
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
