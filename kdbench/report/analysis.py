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
    strategies of the section. `gap` is the share of the teacher-student gap closed, in
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
    """Scratch, kd, then the others by mean top-1, those without a result last."""
    scratch, kd = section.baseline("scratch"), section.baseline("kd")
    found = [_standing(section, label, scratch, kd) for label in section.runs]
    p_scratch = stats.holm(
        {s.label: s.over_scratch.p_value for s in found if s.over_scratch}
    )
    p_kd = stats.holm({s.label: s.over_kd.p_value for s in found if s.over_kd})
    found = [
        replace(s, p_scratch=p_scratch.get(s.label), p_kd=p_kd.get(s.label))
        for s in found
    ]
    first = {label: place for place, label in enumerate((scratch, kd)) if label}

    def order(standing: Standing) -> tuple[int, float, str]:
        return (first.get(standing.label, 2), -standing.oriented, standing.label)

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
