"""What the accuracy table states about each strategy, as numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

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

    `p_scratch` and `p_kd` are of paired t-tests (unadjusted: `over_kd.p_value`).
    `flip_scratch` and `flip_kd` are the unadjusted p-values of sign-flip permutation
    tests of the same differences, `holm_flip_scratch` and `holm_flip_kd` the adjusted.
    `near_best` says that its mean is the best of several, or not significantly worse
    than it (`stats.not_worse` over the strategies that are not compressed).
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
    flip_scratch: float | None = None
    flip_kd: float | None = None
    holm_flip_scratch: float | None = None
    holm_flip_kd: float | None = None
    near_best: bool = False

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

    Compressed students follow all that are not. Worked out once for each section.
    """
    return list(_standings(section))


@lru_cache(maxsize=256)
def _standings(section: Section) -> tuple[Standing, ...]:
    scratch, kd = section.baseline("scratch"), section.baseline("kd")
    found = [_standing(section, label, scratch, kd) for label in section.runs]
    p_scratch = _adjusted(found, lambda s: _p_value(s.over_scratch))
    p_kd = _adjusted(found, lambda s: _p_value(s.over_kd))
    flip_scratch = _adjusted(found, lambda s: s.flip_scratch)
    flip_kd = _adjusted(found, lambda s: s.flip_kd)
    near = _near_best(section, found)
    found = [
        replace(
            s,
            p_scratch=p_scratch[s.label],
            p_kd=p_kd[s.label],
            holm_flip_scratch=flip_scratch[s.label],
            holm_flip_kd=flip_kd[s.label],
            near_best=s.label in near,
        )
        for s in found
    ]
    first = {label: place for place, label in enumerate((scratch, kd)) if label}

    def order(standing: Standing) -> tuple[int, float, str]:
        place = 3 if standing.compression else first.get(standing.label, 2)
        return (place, -standing.oriented, standing.label)

    return tuple(sorted(found, key=order))


def _p_value(gain: Paired | None) -> float | None:
    return gain.p_value if gain else None


def _adjusted(
    found: Sequence[Standing], p_value: Callable[[Standing], float | None]
) -> dict[str, float | None]:
    """Label -> Holm-adjusted p, the strategies of each compression apart."""
    adjusted: dict[str, float | None] = {}
    for compression in {s.compression for s in found}:
        own = [s for s in found if s.compression == compression]
        adjusted |= stats.holm({s.label: p_value(s) for s in own})
    return adjusted


def _near_best(section: Section, found: Sequence[Standing]) -> set[str]:
    """The best by mean and those not significantly worse, compressed students out."""
    name, sign = section.headline.name, section.sign
    values = {
        s.label: {k: sign * v for k, v in section.values(s.label, name).items()}
        for s in found
        if s.quality and not s.compression
    }
    return stats.not_worse(values) if len(values) > 1 else set()


def _standing(
    section: Section, label: str, scratch: str | None, kd: str | None
) -> Standing:
    runs = list(section.runs[label].values())
    values = section.values(label, section.headline.name)
    quality = stats.interval(list(values.values())) if values else None
    over_scratch = over_kd = flip_scratch = flip_kd = None
    if label != scratch:
        over_scratch, flip_scratch = _gain(section, label, scratch)
    if label not in (scratch, kd):
        over_kd, flip_kd = _gain(section, label, kd)
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
        flip_scratch=flip_scratch,
        flip_kd=flip_kd,
    )


def _common(
    section: Section, label: str, other: str
) -> tuple[list[float], list[float]]:
    name = section.headline.name
    a, b = section.values(label, name), section.values(other, name)
    seeds = [seed for seed in a if seed in b]
    return [a[seed] for seed in seeds], [b[seed] for seed in seeds]


def _gain(
    section: Section, label: str, other: str | None
) -> tuple[Paired | None, float | None]:
    """The paired differences, positive where better, and their sign-flip p."""
    ours, theirs = _common(section, label, other) if other else ([], [])
    if not ours:
        return None, None
    better, worse = (ours, theirs) if section.sign > 0 else (theirs, ours)
    differences = [a - b for a, b in zip(better, worse, strict=True)]
    return stats.paired(better, worse), stats.sign_flip(differences)


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
