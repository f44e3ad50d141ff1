"""What the accuracy table states about each strategy, as numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kdbench import stats
from kdbench.report.sections import Section
from kdbench.stats import Interval, Paired


@dataclass(frozen=True)
class Standing:
    """One strategy in one section.

    `quality` is the headline over its finished seeds, `oriented` its mean times the
    section's sign: higher is better. Gains are positive where the strategy is better,
    paired over the seeds that both finished; p-values are Holm-adjusted over the
    strategies of the section, those of each compression apart, so that measuring it
    changes no other p-value. `gap` is the share of the teacher-student gap closed, in
    percent.
    """

    label: str
    strategy: str
    family: str
    runs: int
    failed: int
    skipped: int
    quality: Interval | None
    oriented: float
    over_scratch: Paired | None = None
    over_kd: Paired | None = None
    p_scratch: float | None = None
    p_kd: float | None = None
    gap: float | None = None
    compression: str = ""

    @property
    def status(self) -> str:
        """How many runs failed or were skipped, or "finished"."""
        parts = []
        if self.failed:
            parts.append(f"failed ({self.failed} of {self.runs})")
        if self.skipped:
            parts.append(f"skipped ({self.skipped} of {self.runs})")
        return ", ".join(parts) or "finished"


def standings(section: Section) -> list[Standing]:
    """Scratch, kd, then the others by their mean, those without a result last.

    Compressed students follow all that are not.
    """
    scratch, kd = section.baseline("scratch"), section.baseline("kd")
    found = [_standing(section, label, scratch, kd) for label in section.runs]
    p_scratch: dict[str, float | None] = {}
    p_kd: dict[str, float | None] = {}
    for family in {s.compression for s in found}:
        own = [s for s in found if s.compression == family]
        over_scratch = {s.label: s.over_scratch for s in own if s.over_scratch}
        over_kd = {s.label: s.over_kd for s in own if s.over_kd}
        p_scratch |= stats.holm({k: v.p_value for k, v in over_scratch.items()})
        p_kd |= stats.holm({k: v.p_value for k, v in over_kd.items()})
    found = [
        replace(s, p_scratch=p_scratch.get(s.label), p_kd=p_kd.get(s.label))
        for s in found
    ]
    first = {label: place for place, label in enumerate((scratch, kd)) if label}

    def order(standing: Standing) -> tuple[int, float, str]:
        place = 3 if standing.compression else first.get(standing.label, 2)
        return (place, -standing.oriented, standing.label)

    return sorted(found, key=order)


def _standing(
    section: Section, label: str, scratch: str | None, kd: str | None
) -> Standing:
    runs = list(section.runs[label].values())
    values = section.values(label, section.headline.name)
    quality = stats.interval(list(values.values())) if values else None
    over_scratch = over_kd = None
    if label != scratch:
        over_scratch = _gain(section, label, scratch)
    if label not in (scratch, kd):
        over_kd = _gain(section, label, kd)
    return Standing(
        label=label,
        strategy=runs[0].run.strategy,
        family=runs[0].family,
        runs=len(runs),
        failed=sum(run.status == "failed" for run in runs),
        skipped=sum(run.status == "skipped" for run in runs),
        quality=quality,
        oriented=section.sign * quality.mean if quality else float("-inf"),
        over_scratch=over_scratch,
        over_kd=over_kd,
        gap=_gap(section, label, scratch) if over_scratch else None,
        compression=runs[0].run.compression,
    )


def _common(
    section: Section, label: str, other: str
) -> tuple[list[float], list[float]]:
    name = section.headline.name
    a, b = section.values(label, name), section.values(other, name)
    seeds = [seed for seed in a if seed in b]
    return [a[seed] for seed in seeds], [b[seed] for seed in seeds]


def _gain(section: Section, label: str, other: str | None) -> Paired | None:
    if other is None:
        return None
    ours, theirs = _common(section, label, other)
    if not ours:
        return None
    return stats.paired(*((ours, theirs) if section.sign > 0 else (theirs, ours)))


def _gap(section: Section, label: str, scratch: str | None) -> float | None:
    """(student - scratch) / (teacher - scratch) in %; None without a gap."""
    teacher = section.teacher_quality
    if teacher is None or scratch is None:
        return None
    ours, alone = _common(section, label, scratch)
    student, baseline = stats.interval(ours).mean, stats.interval(alone).mean
    if section.sign * (teacher - baseline) <= 0:
        return None
    return 100 * (student - baseline) / (teacher - baseline)
