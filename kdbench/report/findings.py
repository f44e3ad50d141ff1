"""What all settings together have shown, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from kdbench.report import formats
from kdbench.report.analysis import Standing, standings
from kdbench.report.averages import Average, Averages, averages
from kdbench.report.ranking import references, strategies
from kdbench.report.sections import Section
from kdbench.stats import Paired

NAMED = 6
"""Names in a sentence, at most."""


def findings(sections: Sequence[Section]) -> Iterator[str]:
    """The sentences that open the report, each true for any results."""
    if not sections:
        return
    if not any(s.quality for section in sections for s in standings(section)):
        yield (
            f"No student has a result on {_place(sections)}, so nothing can be "
            "compared: see the failed and skipped runs."
        )
        return
    found = averages(sections)
    if not any(_kd(section) for section in sections):
        every = "any of the " if len(sections) > 1 else ""
        yield (
            f"There is no result of plain kd on {every}{_place(sections)}: no strategy "
            "can be compared with it."
        )
    elif len(found.with_kd) > 1 or len(sections) == 1:
        yield _lead(found, sections)
    if len(sections) > 1:
        yield from _by_setting(sections)
        yield from _kd_itself(sections, found)
        yield _runs(sections)
    yield _limits(sections)


def _kd(section: Section) -> Standing | None:
    """The standing of plain kd, where it has a result."""
    label = section.baseline("kd")
    found = (s for s in standings(section) if s.label == label and s.quality)
    return next(found, None)


def _place(sections: Sequence[Section], of: Sequence[Section] = ()) -> str:
    """The one setting by its title, or how many, and `of` how many."""
    if len(sections) == 1:
        return sections[0].title
    if len(sections) < len(of):
        title = sections[0].headline.title
        return f"{len(sections)} of {len(of)} settings ({title})"
    return f"{len(sections)} settings"


def _lead(found: Averages, sections: Sequence[Section]) -> str:
    """The largest gain over kd, and how many others are told from it."""
    over = found.with_kd
    where = f"On {_place(over, sections)}"
    others = {k: v for k, v in found.found.items() if v.over_kd}
    if not others:
        if len(over) == 1:
            return f"{where} no other strategy shares a finished seed with plain kd."
        return (
            f"{where} no other strategy shares a finished seed with plain kd in all of "
            "them, so there is no mean gain to tell."
        )
    seeds = {v.over_kd.n for v in others.values() if v.over_kd}
    where += f" and {_range(seeds, 'seed')}"
    if len(over) > 1 and seeds != {len(section.seeds) for section in over}:
        where += " in common"
    tested = {k: v for k, v in others.items() if v.p_kd is not None}
    average = " on average" if len(over) > 1 else ""
    if not tested:
        best = max(others, key=lambda label: _mean(others[label]))
        gain = f"{_spread(others[best].over_kd, found)}{average}"
        return (
            f"{where} no difference from plain kd could be tested{_why(seeds)}; the "
            f"largest mean gain over it is that of {best}, {gain}."
        )
    better = [k for k, v in tested.items() if _clear(v) and _mean(v) > 0]
    worse = [k for k, v in tested.items() if _clear(v) and _mean(v) < 0]
    best = max(better or tested, key=lambda label: _mean(others[label]))
    text = (
        f"{where}, {best} beats plain kd by"
        if better
        else f"{where}, no strategy is shown to beat plain kd; the largest mean gain "
        f"of those tested is that of {best},"
    )
    gain = _spread(others[best].over_kd, found, signed=not better)
    adjusted = f"{_p(others[best].p_kd)}, Holm-adjusted over {_strategies(len(tested))}"
    largest = _largest(best, others, found) if better else []
    rest = "; ".join([*largest, *_rest(better, best, worse, others)])
    return f"{text} {gain}{average} ({adjusted}); {rest}."


def _largest(best: str, others: dict[str, Average], found: Averages) -> list[str]:
    """The largest mean gain where that is not the one a test shows."""
    label = max(others, key=lambda k: _mean(others[k]))
    if label == best:
        return []
    why = "not tested" if others[label].p_kd is None else "not significant"
    gain = _spread(others[label].over_kd, found)
    return [f"the largest mean gain is that of {label}, {gain}, {why}"]


def _rest(
    better: list[str], best: str, worse: list[str], others: dict[str, Average]
) -> Iterator[str]:
    """What the test says of the strategies that were not named."""
    more = sorted((k for k in better if k != best), key=lambda k: -_mean(others[k]))
    if more:
        yield f"{_are(len(more))} better too ({formats.listed(more, most=NAMED)})"
    untested = sum(average.p_kd is None for average in others.values())
    alike = len(others) - len(better) - len(worse) - untested
    if alike:
        tested = len(others) - untested
        many = f"all {alike} tested" if 1 < alike == tested else _strategies(alike)
        verb = "is" if alike == 1 else "are"
        yield f"{many} {verb} not significantly different from kd"
    low = sorted(worse, key=lambda k: _mean(others[k]))
    named = f" ({formats.listed(low, most=NAMED)})" if low else ""
    yield f"{_are(len(low))} worse{named}"
    if untested:
        yield f"{untested} could not be tested"


def _by_setting(sections: Sequence[Section]) -> Iterator[str]:
    """How often each strategy differs from kd, setting by setting."""
    tested: Counter[str] = Counter()
    better: Counter[str] = Counter()
    worse: Counter[str] = Counter()
    settings = 0
    for section in sections:
        known = [
            s for s in standings(section) if s.p_kd is not None and not s.compression
        ]
        settings += bool(known)
        for standing in known:
            clear = (standing.p_kd or 0.0) < formats.SIGNIFICANT
            gain = standing.over_kd.mean if standing.over_kd else 0.0
            tested[standing.label] += 1
            better[standing.label] += clear and gain > 0
            worse[standing.label] += clear and gain < 0
    if not tested:
        if any(_kd(section) for section in sections):
            yield "In no setting could a difference from plain kd be tested."
        return
    often = [k for k in tested if better[k] > settings / 2]
    seldom = [k for k in tested if worse[k] > settings / 2]
    never = sum(not better[k] and not worse[k] for k in tested)
    some_only = len(tested) - len(often) - len(seldom) - never
    parts = [
        f"{_are(len(labels))} significantly {word} in more than half of them"
        f"{_counted(labels, counts, settings)}"
        for word, labels, counts in (
            ("better", often, better),
            ("worse", seldom, worse),
        )
        if labels
    ] or ["none is significantly better or worse in more than half of them"]
    if some_only:
        parts.append(f"{_are(some_only)} told from it in fewer")
    if never:
        parts.append(f"{_are(never)} never told from it")
    if never == len(tested):
        parts = ["none is ever told from it"]
    yield (
        f"Setting by setting, {_strategies(len(tested))} {_was(len(tested))} tested "
        f"against plain kd in {_settings(settings)}{_or_fewer(tested, settings)}: "
        f"{', '.join(parts)} (paired "
        "t-tests over seeds, Holm-adjusted over the strategies of each setting, 0.05)."
    )


def _or_fewer(tested: Counter[str], settings: int) -> str:
    return " or fewer" if min(tested.values()) < settings else ""


def _counted(labels: list[str], counts: Counter[str], settings: int) -> str:
    """The labels with how often, the most frequent first, in brackets."""
    order = sorted(labels, key=lambda k: (-counts[k], k))
    named = [f"{label} {counts[label]} of {settings}" for label in order]
    return f" ({formats.listed(named, most=NAMED)})" if named else ""


def _kd_itself(sections: Sequence[Section], found: Averages) -> Iterator[str]:
    """What plain kd gains over scratch."""
    kds = [kd for kd in map(_kd, sections) if kd]
    gains = [kd for kd in kds if kd.over_scratch]
    if not gains:
        if kds:
            yield "Plain kd shares no finished seed with scratch in any setting."
        return
    tested = [kd for kd in gains if kd.p_scratch is not None]
    clear = [kd for kd in tested if (kd.p_scratch or 0.0) < formats.SIGNIFICANT]
    better = sum(
        kd.over_scratch is not None and kd.over_scratch.mean > 0 for kd in clear
    )
    text = "Plain kd against scratch: could be tested in no setting"
    if tested:
        text = (
            f"Plain kd against scratch, tested in {_settings(len(tested))}: "
            f"significantly better in {better}, worse in {len(clear) - better}"
        )
    label, over = gains[0].label, found.with_scratch
    average = found.found.get(label, Average())
    if average.over_scratch and len(over) > 1:
        gain = _spread(average.over_scratch, found)
        p = average.p_scratch
        count = sum(v.p_scratch is not None for v in found.found.values())
        adjusted = f" ({_p(p)}, Holm-adjusted over {_strategies(count)})"
        text += f"; mean gain over {_place(over, sections)}: {gain}"
        text += "" if p is None else adjusted
    yield f"{text}."


def _runs(sections: Sequence[Section]) -> str:
    """How many runs there are, and which did not finish."""
    found = [s for section in sections for s in standings(section) if not s.compression]
    failed, skipped = sum(s.failed for s in found), sum(s.skipped for s in found)
    runs = sum(s.runs for s in found)
    text = (
        f"This rests on {runs:,} {'run' if runs == 1 else 'runs'} of "
        f"{_strategies(len({s.label for s in found}))}, baselines included (teachers "
        f"and compressed students are not counted), in {len(sections)} settings"
    )
    if not failed and not skipped:
        return f"{text}; all finished."
    lost: Counter[str] = Counter()
    for standing in found:
        lost[standing.label] += standing.failed + standing.skipped
    named = [f"{label}: {n}" for label, n in lost.most_common() if n]
    ways = [f"{failed:,} failed"] * bool(failed)
    ways += [f"{_was(skipped, f'{skipped:,} ')} skipped"] * bool(skipped)
    return f"{text}; {' and '.join(ways)} ({formats.listed(named, most=NAMED)})."


def _limits(sections: Sequence[Section]) -> str:
    """What these numbers cannot say."""
    most = max(len(section.seeds) for section in sections)
    parts = []
    if most == 1:
        parts.append("with one seed no difference can be told from chance")
    else:
        few = _range({len(section.seeds) for section in sections}, "seed")
        parts.append(
            f"not significant is not equal, and {few} show only differences that are "
            "large beside their spread"
        )
        parts.append(
            "each ± is a 95% t-interval over seeds, not adjusted for how many there are"
        )
    leading = [
        {r.run.teacher_runs[0] for r in section.records if r.run.teacher_runs}
        for section in sections
    ]
    if all(len(teachers) == 1 for teachers in leading):
        where = "all students" if len(sections) == 1 else "all students of a setting"
        parts.append(
            f"{where} learned from one teacher checkpoint, so no number says how much "
            "another training of the teacher would change"
        )
    known = references(sections)
    others = {s.label for section in sections for s in strategies(section)} - {*known}
    if len(others) > 1:
        parts.append("the largest of many gains is likely to overstate the true one")
    return f"Limits: {'; '.join(parts)}."


def _mean(average: Average) -> float:
    return average.over_kd.mean if average.over_kd else float("-inf")


def _clear(average: Average) -> bool:
    return average.p_kd is not None and average.p_kd < formats.SIGNIFICANT


def _spread(gain: Paired | None, found: Averages, *, signed: bool = True) -> str:
    """The gain with its unit, and its measure where that is not a percentage."""
    text = f"{formats.spread(gain, found.digits, signed=signed)} {found.unit}".rstrip()
    headline = found.sections[0].headline
    return text if headline.unit == "%" else f"{text} of {headline.title}"


def _p(p: float | None) -> str:
    shown = formats.p_value(p)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def _why(seeds: set[int]) -> str:
    """Why nothing could be tested."""
    if seeds == {1}:
        return " (a test needs two seeds)"
    return " (their differences are the same in every seed)"


def _range(numbers: set[int], noun: str) -> str:
    low, high = min(numbers), max(numbers)
    if low == high:
        return formats.plural(low, noun)
    return f"{low} to {formats.plural(high, noun)}"


def _settings(n: int) -> str:
    return formats.plural(n, "setting")


def _strategies(n: int) -> str:
    return "1 strategy" if n == 1 else f"{n} strategies"


def _are(n: int) -> str:
    return f"{n or 'none'} {'is' if n < 2 else 'are'}"


def _was(n: int, count: str = "") -> str:
    return f"{count}{'was' if n == 1 else 'were'}"
