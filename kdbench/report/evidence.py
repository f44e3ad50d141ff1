"""The tables of tests: over seeds, over test items, and what the seeds could show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kdbench import stats
from kdbench.report import formats
from kdbench.report.analysis import Standing, standings
from kdbench.report.items import RESAMPLES, Bits, Items, bits
from kdbench.report.reach import (
    CONSTANT,
    Reach,
    gain_over,
    reach,
    references,
    step,
    target,
)
from kdbench.report.sections import Section
from kdbench.report.tables import CSV_ONLY, Cell, Column, Row, Table
from kdbench.stats import Interval
from kdbench.stats.power import LEAST_LEVEL

OVER_SEEDS = (
    "Every strategy against {name}; differences in {title} are positive where the "
    "strategy is better. All tests are two-sided, all intervals 95% and not adjusted "
    "for the number of strategies; n.s.: not significant at 0.05. Over seeds (would "
    "another training differ?): mean difference, paired by seed, ± half-width of its "
    "t-interval, n seeds; p of the paired t-test and of the sign-flip permutation test "
    "of the same differences, each as it is and Holm-adjusted over all strategies "
    "compared with {name} (compressed students are not among them)."
)
OVER_ITEMS = (
    " Over test items (would another test set differ?): interval of the same "
    f"difference by a percentile bootstrap, {RESAMPLES} resamples of the test items, "
    "each item's difference averaged over the seeds, the trained students as they are. "
    "McNemar, better and worse: in how many seeds the exact McNemar test of the two "
    "students on the same items gives p < 0.05 for the strategy, and against it; not "
    "adjusted, so by chance alone up to 1 test in 20 does. These are two questions: an "
    "answer to one is none to the other."
)
DETECTABLE = (
    "The power of a paired t-test (two-sided, 0.05) of differences to {name}, from "
    "their sd over seeds: the smallest true difference that n seeds find 4 times in 5, "
    "in one test and at the strictest step of Holm's correction for {tests}; and the "
    "fewest seeds with which one test finds a given difference 4 times in 5{shares}. "
    "Median: of the sds of all strategies; least and largest: of one strategy each. An "
    "sd over few seeds is rough, and more often too low than too high (of normal "
    "differences half of the sds over 3 seeds are below 0.83 of the true one, over 5 "
    "seeds below 0.92): expect to need more."
)


def evidence_table(section: Section) -> Table | None:
    """Every strategy against kd and scratch, by seeds and by test items.

    Where there is no kd, against scratch alone; None without either. Compressed
    students are left out.
    """
    found = [s for s in standings(section) if not s.compression]
    names = references(found)
    if not names:
        return None
    known, by_items = bits(section), False
    rows = [s for s in found if any(gain_over(s, name) for name in names)]
    columns = [Column("strategy", "Strategy", numeric=False)]
    cells = {s.label: [Cell(s.label, s.label)] for s in rows}
    for name in names:
        items = _items(section, rows, name, known)
        columns += _columns(section, name, any(items.values()), name == names[0])
        by_items = by_items or any(items.values())
        for s in rows:
            cells[s.label] += _over_seeds(section, s, name)
            if any(items.values()):
                cells[s.label] += _over_items(section, items[s.label])
    caption = OVER_SEEDS + (OVER_ITEMS if by_items else "")
    kd = section.baseline("kd")
    return Table(
        key="tests",
        title=f"Tests against {names[0]}",
        caption=caption.format(name=names[0], title=section.headline.title),
        columns=tuple(columns),
        rows=tuple(
            Row(tuple(own), "reference" if label == kd else "plain")
            for label, own in cells.items()
        ),
        notes=tuple(_notes(rows, names[0], known, by_items)),
    )


def _items(
    section: Section, rows: Sequence[Standing], name: str, known: Bits
) -> dict[str, Items | None]:
    """By label, for the strategies that are compared with `name`."""
    other = section.baseline(name)
    return {
        s.label: known.compare(s.label, other) if gain_over(s, name) else None
        for s in rows
    }


def _columns(
    section: Section, name: str, with_items: bool, first: bool
) -> Iterator[Column]:
    """Of one reference: the `first` is in sight, of another only what is new."""
    unit, over = section.headline.gain_unit, f"over_{name}"
    last = "" if first else f", {name}"

    def column(key: str, title: str, unit: str, level: int, later: int) -> Column:
        return Column(key, title, unit, level=level if first else later)

    yield column(over, f"Over {name}", unit, 0, 6)
    yield column(f"{over}_half_width", "95% half-width", unit, CSV_ONLY, CSV_ONLY)
    yield column(f"sd_{name}", "sd", unit, CSV_ONLY, CSV_ONLY)
    yield column(f"n_{name}", "n", "", 2, CSV_ONLY)
    yield column(f"t_{name}", "t-test: p", "", 3, CSV_ONLY)
    yield column(f"t_{name}_holm", "t-test: p Holm", "", 0, CSV_ONLY)
    yield column(f"flip_{name}", "Sign flip: p", "", 4, CSV_ONLY)
    yield column(f"flip_{name}_holm", "Sign flip: p Holm", "", 1, CSV_ONLY)
    yield column(f"detectable_{name}", "Detectable", unit, CSV_ONLY, CSV_ONLY)
    if with_items:
        yield column(f"items_{name}", f"Items, 95%{last}", unit, 0, 7)
        yield column(f"items_{name}_low", "Lower end", unit, CSV_ONLY, CSV_ONLY)
        yield column(f"items_{name}_high", "Upper end", unit, CSV_ONLY, CSV_ONLY)
        yield column(f"mcnemar_{name}_better", f"McNemar better{last}", "", 1, 8)
        yield column(f"mcnemar_{name}_worse", f"McNemar worse{last}", "", 1, 8)
        yield column(f"mcnemar_{name}_seeds", "Seeds", "", CSV_ONLY, CSV_ONLY)
        yield column(f"right_only_strategy_{name}", "Only it", "", CSV_ONLY, CSV_ONLY)
        yield column(f"right_only_{name}", f"Only {name}", "", CSV_ONLY, CSV_ONLY)


def _over_seeds(section: Section, standing: Standing, name: str) -> list[Cell]:
    gain, digits = gain_over(standing, name), section.digits
    if gain is None:
        return [Cell(None, formats.MISSING)] * 9
    if name == "kd":
        holm = standing.p_kd
        flips = (standing.flip_kd, standing.holm_flip_kd)
    else:
        holm = standing.p_scratch
        flips = (standing.flip_scratch, standing.holm_flip_scratch)
    least = stats.detectable(gain.sd, gain.n) if gain.sd and gain.half_width else None
    return [
        Cell(gain.mean, formats.spread(gain, digits, signed=True)),
        Cell(gain.half_width, formats.fixed(gain.half_width, digits)),
        Cell(gain.sd, formats.fixed(gain.sd, digits)),
        Cell(gain.n, str(gain.n)),
        *(Cell(p, formats.p_value(p)) for p in (gain.p_value, holm, *flips)),
        Cell(least, formats.fixed(least, digits)),
    ]


def _over_items(section: Section, items: Items | None) -> list[Cell]:
    if items is None:
        return [Cell(None, formats.MISSING)] * 8
    low, high = (
        formats.spread(Interval(end, None, None, 1), section.digits, signed=True)
        for end in (items.low, items.high)
    )
    return [
        Cell(items.mean, f"{low} to {high}"),
        Cell(items.low, low),
        Cell(items.high, high),
        Cell(items.better, f"{items.better} of {items.seeds}"),
        Cell(items.worse, f"{items.worse} of {items.seeds}"),
        *(
            Cell(count, str(count))
            for count in (items.seeds, items.only_own, items.only_other)
        ),
    ]


def _notes(
    rows: Sequence[Standing], name: str, known: Bits, by_items: bool
) -> Iterator[str]:
    gains = [gain for s in rows if (gain := gain_over(s, name))]
    n = max(gain.n for gain in gains)
    if n == 1:
        yield (
            f"With one seed in common with {name} no test over seeds is possible: "
            "nothing here says whether another training would differ."
        )
        if by_items:
            yield (
                "What is said of test items holds for these trained students only, not "
                "for the strategies: it says nothing about another training."
            )
    else:
        yield _least(n, sum(gain.n > 1 for gain in gains))
    if any(gain.half_width == 0 for gain in gains):
        yield CONSTANT
    if known.misfits:
        yield (
            "Their bits are not those of the test set, so these runs are left out of "
            f"what is said of test items: {formats.listed(known.misfits)}."
        )


def _least(n: int, tests: int) -> str:
    """What the permutation test can reach with n seeds and so many tests."""
    least = stats.least_p(n) or 1.0
    adjusted = min(1.0, tests * least)
    text = f"With {n} seeds the sign-flip test's p is at least {least:.3g}"
    if least >= formats.SIGNIFICANT:
        return f"{text}: whatever the differences, it cannot reach 0.05 here."
    if adjusted >= formats.SIGNIFICANT:
        return (
            f"{text}, and Holm-adjusted for {tests} tests at least {adjusted:.3g}: "
            "whatever the differences, it cannot reach 0.05 here when adjusted."
        )
    return f"{text}."


def detectable_table(section: Section) -> Table | None:
    """The smallest difference to kd that the seeds at hand could have shown.

    Without kd, to scratch; None where no two seeds can be compared.
    """
    found = reach(section)
    if found is None:
        return None
    unit = section.headline.gain_unit
    columns = (
        Column("of", "Strategies", numeric=False),
        Column("sd", "sd of differences", unit),
        Column("n", "n"),
        Column("detectable", "Found 4 times in 5", unit),
        Column("detectable_holm", "By the strictest Holm step", unit, level=1),
        *_targets(found, unit),
    )
    sds = {"median": found.sd}
    if len(found.sds) > 1:
        sds = {"least": found.sds[0], **sds, "largest": found.sds[-1]}
    shares = (
        f": shares of the mean {section.headline.title} of {found.reference}"
        if found.shares
        else ""
    )
    tests = formats.plural(found.tests, "test")
    caption = DETECTABLE.format(name=found.reference, tests=tests, shares=shares)
    low = step(found.tests) < LEAST_LEVEL
    return Table(
        key="detectable",
        title="What these seeds can show",
        caption=caption,
        columns=columns,
        rows=tuple(Row((Cell(of, of), *_shown(found, sd))) for of, sd in sds.items()),
        notes=(f"-: not worked out for {tests} (p < {LEAST_LEVEL:g}).",) * low,
    )


def _targets(found: Reach, unit: str) -> Iterator[Column]:
    for place, difference in enumerate(found.targets):
        shown = f"{target(difference)} {unit}".rstrip()
        if found.shares:
            percent = f"{100 * found.shares[place]:g}"
            key, title = f"seeds_{percent}_percent", f"Seeds for {percent}% ({shown})"
        else:
            key, title = f"seeds_{difference:g}", f"Seeds for {shown}"
        yield Column(key, title, level=1 if place == 1 else 2)


def _shown(found: Reach, sd: float) -> Iterator[Cell]:
    yield Cell(sd, formats.significant(sd, 2))
    yield Cell(found.n, str(found.n))
    for level in (formats.SIGNIFICANT, step(found.tests)):
        known = level >= LEAST_LEVEL
        least = stats.detectable(sd, found.n, level=level) if known else None
        yield Cell(least, formats.significant(least, 2))
    for difference in found.targets:
        seeds = stats.seeds_needed(sd, difference)
        yield Cell(seeds, ">10,000" if seeds is None else f"{seeds:,}")
