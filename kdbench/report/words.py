"""A section's outcome in sentences: what was found, and what was not shown."""

from __future__ import annotations

from collections.abc import Sequence

from kdbench import stats
from kdbench.report import formats, reach
from kdbench.report.analysis import Standing, standings
from kdbench.report.sections import Section
from kdbench.stats import Paired


def summary(section: Section) -> list[str]:
    """The sentences that open a section of the report."""
    found = standings(section)
    by_label = {standing.label: standing for standing in found}
    scratch = by_label.get(section.baseline("scratch") or "")
    kd = by_label.get(section.baseline("kd") or "")
    told = [f"{section.system.rstrip('.')}." if section.system else "", section.note]
    sentences = [words for words in told if words]
    sentences.append(_opening(section, scratch, kd))
    others = [
        s for s in found if s.quality and s not in (scratch, kd) and not s.compression
    ]
    if others:
        sentences.append(_highest(section, others, kd) + _near(section, found))
    tested = [s for s in others if s.p_kd is not None]
    if tested:
        sentences.append(_against_kd(section, tested))
    if any(s.compression for s in found):
        sentences.append(_compressed(found, section))
    if len(section.seeds) == 1:
        sentences.append(
            "With one seed no difference can be told from chance: no test was done."
        )
    unfinished = [s for s in found if s.status != "finished"]
    if unfinished:
        sentences.append(
            "Not all finished: "
            + formats.listed([f"{s.label} {s.status}" for s in unfinished], "; ")
            + "."
        )
    return sentences


def _opening(section: Section, scratch: Standing | None, kd: Standing | None) -> str:
    digits, unit, parts = section.digits, _unit(section), []
    if section.teacher_quality is not None:
        value = f"{section.teacher_quality:.{digits}f}{unit}"
        parts.append(f"the teacher reaches {_measured(section)}{value}")
    if scratch and scratch.quality:
        parts.append(f"scratch {formats.spread(scratch.quality, digits)}{unit}")
    if kd and kd.quality:
        gain = _gain(kd.over_scratch, kd.p_scratch, "scratch", digits)
        mean = formats.spread(kd.quality, digits)
        parts.append(f"kd {mean}{unit}{gain and f' ({gain})'}")
    seeds = formats.plural(len(section.seeds), "seed")
    result = ", ".join(parts) or "there is no teacher, scratch or kd to compare with"
    return f"On {section.title} with {seeds}: {result}."


def _unit(section: Section) -> str:
    unit = section.headline.unit
    return f" {unit}" if unit else ""


def _measured(section: Section) -> str:
    """What is measured, where it is not an accuracy in percent."""
    headline = section.headline
    if headline.unit == "%":
        return ""
    return f"{headline.title} ({headline.better} is better) "


def _gain(gain: Paired | None, p: float | None, over: str, digits: int) -> str:
    if gain is None:
        return ""
    text = f"{formats.spread(gain, digits, signed=True)} over {over}"
    if p is None:
        return text
    shown = formats.p_value(p)
    return f"{text}, p {shown if shown.startswith('<') else f'= {shown}'}"


def _highest(section: Section, others: Sequence[Standing], kd: Standing | None) -> str:
    best = max(others, key=lambda s: s.oriented)
    gain = _gain(best.over_kd, best.p_kd, "kd", section.digits)
    mean = formats.spread(best.quality, section.digits)
    word = "Highest" if section.sign > 0 else "Lowest"
    text = f"{word} mean of the others: {best.label} with {mean}{_unit(section)}"
    if kd is None or not gain:
        return f"{text}."
    return f"{text} ({gain})."


def _near(section: Section, found: Sequence[Standing]) -> str:
    """How many are not told from the best mean; "" where no test says so."""
    known = [s for s in found if s.quality and not s.compression]
    best = max(known, key=lambda s: s.oriented)
    near = sum(s.near_best for s in known if s is not best)
    if not near:
        return ""
    others = len(known) - 1
    needed = reach.lead_needed(section)
    how = f"(paired t-tests of all pairs, Holm-adjusted{needed and f'; {needed}'})"
    if near < others:
        return (
            f" Not significantly worse than {best.label}: {near} of the {others} other "
            f"students {how}."
        )
    student = "the other student" if others == 1 else f"any of the {others} others"
    return f" The seeds cannot tell {student} from {best.label} {how}."


def _compressed(found: Sequence[Standing], section: Section) -> str:
    """How many students were compressed, and the best of them."""
    small = [s for s in found if s.compression and s.quality]
    many = formats.plural(len(small), "compressed student")
    if not small:
        return "No compressed student finished."
    best = max(small, key=lambda s: s.oriented)
    value = f"{formats.spread(best.quality, section.digits)}{_unit(section)}"
    return (
        f"{many} ('Compression, before and after'): the best is {best.label} with "
        f"{value}."
    )


def _against_kd(section: Section, tested: Sequence[Standing]) -> str:
    clear = [s for s in tested if _below(s.p_kd)]
    better = [s.label for s in clear if s.over_kd and s.over_kd.mean > 0]
    worse = [s.label for s in clear if s.over_kd and s.over_kd.mean < 0]
    rest = len(tested) - len(clear)
    parts = [
        f"{len(labels)} significantly {word} ({formats.listed(labels)})"
        for word, labels in (("better", better), ("worse", worse))
        if labels
    ]
    parts.append(f"{rest} not significantly different")
    noun = "strategy" if len(tested) == 1 else "strategies"
    text = f"Against kd, of {len(tested)} other {noun}: {', '.join(parts)}"
    text += " (paired t-tests over seeds, Holm-adjusted, 0.05)."
    text += _by_sign_flips(tested)
    if rest:
        shown = reach.sentence(section) or "few seeds show only large gains"
        text += f" Not significant does not mean equal: {shown}."
    return text


def _below(p: float | None) -> bool:
    return p is not None and p < formats.SIGNIFICANT


def _by_sign_flips(tested: Sequence[Standing]) -> str:
    """Whom the permutation test reads otherwise, of those that it can decide."""
    able = [
        s
        for s in tested
        if s.over_kd and _below(len(tested) * (stats.least_p(s.over_kd.n) or 1.0))
    ]
    lost = [s.label for s in able if _below(s.p_kd) and not _below(s.holm_flip_kd)]
    found = [s.label for s in able if not _below(s.p_kd) and _below(s.holm_flip_kd)]
    parts = [
        f"{word} ({formats.listed(labels)})"
        for word, labels in (
            (f"{len(lost)} of these not significant", lost),
            (f"{len(found)} more significant", found),
        )
        if labels
    ]
    if not parts:
        return ""
    return f" By sign-flip permutation tests, adjusted alike, {' and '.join(parts)}."
