"""Gains averaged over settings, with an interval over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from kdbench import stats
from kdbench.report.analysis import Standing, standings
from kdbench.report.sections import Section
from kdbench.stats import Paired


@dataclass(frozen=True)
class Average:
    """Mean gains of one strategy over settings, positive where it is better.

    The p-values are Holm-adjusted over all strategies that were tested against the same
    baseline. `gap` is the share of the summed gaps closed, in percent.
    """

    over_kd: Paired | None = None
    over_scratch: Paired | None = None
    p_kd: float | None = None
    p_scratch: float | None = None
    gap: float | None = None


@dataclass(frozen=True)
class Averages:
    """Label -> average, and the settings averaged over, the same for every strategy.

    `sections` share a headline; `with_kd` and `with_scratch` are those with a result of
    that baseline, `with_gap` those where the teacher is better than scratch.
    """

    sections: list[Section]
    with_kd: list[Section]
    with_scratch: list[Section]
    with_gap: list[Section]
    found: dict[str, Average] = field(default_factory=dict)

    @property
    def digits(self) -> int:
        """Decimals of a gain."""
        return max(section.digits for section in self.sections)

    @property
    def over(self) -> dict[str, list[Section]]:
        """Baseline -> its sections, where there are several and some mean over them."""
        gains = {
            "scratch": [average.over_scratch for average in self.found.values()],
            "kd": [average.over_kd for average in self.found.values()],
        }
        settings = {"scratch": self.with_scratch, "kd": self.with_kd}
        return {k: v for k, v in settings.items() if len(v) > 1 and any(gains[k])}

    @property
    def unit(self) -> str:
        """Unit of a gain, "" where the headline has none."""
        return self.sections[0].headline.gain_unit


def comparable(sections: Sequence[Section]) -> list[Section]:
    """The sections that may be averaged: one headline in one unit.

    Where there are several headlines they are those of the most frequent one. A
    headline without a unit is of the scale of its dataset, and only averaged within it.
    """
    groups: dict[tuple[str, ...], list[Section]] = {}
    for section in sections:
        headline = section.headline
        scale = "" if headline.unit else section.dataset
        key = (headline.title, headline.unit, headline.better, scale)
        groups.setdefault(key, []).append(section)
    return max(groups.values(), key=len) if groups else []


def averages(sections: Sequence[Section]) -> Averages:
    """Mean gains of each strategy over the comparable sections.

    The replicate is the seed: for each seed that finished in every setting the gain is
    averaged over the settings, and interval and test are those of these means (paired
    t, n = seeds). Trainings of different seeds are independent, while the settings of
    one seed share its random streams, which the mean over them allows for. The settings
    count as fixed and weigh the same: the interval says how well the mean over *these*
    settings is known, not what to expect on another one. A strategy without a result in
    one of the settings has no average, so that all averages are of the same settings.

    The gap closed is the sum of the gains over scratch divided by the sum of the gaps
    between teacher and scratch; a mean of the shares would hang on the setting with the
    smallest gap. Raises ValueError for no sections.
    """
    if not sections:
        raise ValueError("averages over no settings")
    shared = comparable(sections)
    with_kd = [s for s in shared if _result(s, s.baseline("kd"))]
    with_scratch = [s for s in shared if _result(s, s.baseline("scratch"))]
    gaps = {s: gap for s in with_scratch if (gap := _gap(s)) is not None and gap > 0}
    labels = dict.fromkeys(
        s.label for section in shared for s in standings(section) if not s.compression
    )
    scratch = {section.baseline("scratch") for section in shared}
    over_kd = {
        label: _gain(with_kd, label, "kd") for label in labels if label not in scratch
    }
    over_scratch = {label: _gain(with_scratch, label, "scratch") for label in labels}
    p_kd = stats.holm({k: v.p_value for k, v in over_kd.items() if v})
    p_scratch = stats.holm({k: v.p_value for k, v in over_scratch.items() if v})
    found = {
        label: Average(
            over_kd=over_kd.get(label),
            over_scratch=over_scratch[label],
            p_kd=p_kd.get(label),
            p_scratch=p_scratch.get(label),
            gap=_closed(gaps, label),
        )
        for label in labels
    }
    return Averages(shared, with_kd, with_scratch, list(gaps), found)


def _result(section: Section, label: str | None) -> Standing | None:
    """The standing of a label that has a result."""
    found = (s for s in standings(section) if s.label == label and s.quality)
    return next(found, None)


def _gap(section: Section) -> float | None:
    """How much better the teacher is than scratch."""
    scratch = _result(section, section.baseline("scratch"))
    if section.teacher_quality is None or scratch is None:
        return None
    return section.sign * section.teacher_quality - scratch.oriented


def _closed(gaps: dict[Section, float], label: str) -> float | None:
    """Share of the summed gaps closed, in percent."""
    gains = []
    for section in gaps:
        standing = _result(section, label)
        if standing is None or standing.over_scratch is None:
            return None
        gains.append(standing.over_scratch.mean)
    return 100 * sum(gains) / sum(gaps.values()) if gains else None


def _gain(sections: Sequence[Section], label: str, baseline: str) -> Paired | None:
    """The gain over a baseline, each seed's mean over the sections as one value."""
    pairs = []
    for section in sections:
        other = section.baseline(baseline)
        if other is None or other == label:
            return None
        name, sign = section.headline.name, section.sign
        ours, theirs = section.values(label, name), section.values(other, name)
        pairs.append(
            {s: (sign * ours[s], sign * theirs[s]) for s in ours.keys() & theirs}
        )
    seeds = sorted(set.intersection(*map(set, pairs))) if pairs else []
    if not seeds:
        return None
    return stats.paired(
        [statistics.fmean(pair[seed][0] for pair in pairs) for seed in seeds],
        [statistics.fmean(pair[seed][1] for pair in pairs) for seed in seeds],
    )
