"""Published numbers beside ours, and what the comparison comes to.

A published number is never a result of ours: it stands in a column of its own, with its
source and the epoch which that source reports (protocol, rule 2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kdbench.api import unknown
from kdbench.records import TOP1
from kdbench.report import formats, published
from kdbench.report.analysis import Standing, standings
from kdbench.report.published import Entry
from kdbench.report.recipes import is_published_setting, unlike
from kdbench.report.sections import Section
from kdbench.report.tables import CSV_ONLY, Cell, Column, Row, Table, word
from kdbench.stats import Interval
from kdbench.store import Results

REFERENCES = ("published",)
VERDICTS = (
    "reproduced",
    "higher",
    "lower",
    "one seed: unknown",
    "other recipe",
    "no result",
    "not run",
)
CAPTION = (
    "Ours: top-1 at the last epoch, mean over n seeds ± half-width of the 95% "
    "t-interval. Verdict: reproduced where the published number lies inside that "
    "interval, else ours is higher or lower; a wide interval holds much, so read it "
    "with its width. The published students had other teacher checkpoints than ours. "
    "Of several sources, one that reports the last epoch is shown before any other; "
    "then the field's common table (RepDistiller), the authors of a strategy by year, "
    "and those who collect."
)


@dataclass(frozen=True, eq=False)
class Against(Results):
    """Results whose report is to compare them with `reference`."""

    reference: str = "published"


def against(results: Results, reference: str) -> Against:
    """The results, to be compared. Raises UserError for an unknown reference."""
    if reference not in REFERENCES:
        raise unknown("reference", reference, REFERENCES, "--against")
    return Against(**vars(results), reference=reference)


def verdict(ours: Interval | None, theirs: float, *, same_recipe: bool) -> str:
    """What our interval says of a published number: one of `VERDICTS`.

    With one seed there is no interval, and so no answer; by another recipe the numbers
    are not comparable. The interval's ends belong to it.
    """
    if ours is None:
        return "not run"
    if not same_recipe:
        return "other recipe"
    if ours.half_width is None:
        return "one seed: unknown"
    if abs(ours.mean - theirs) <= ours.half_width:
        return "reproduced"
    return "higher" if ours.mean > theirs else "lower"


@dataclass(frozen=True)
class Comparison:
    """One strategy's published number and ours.

    `label` is our row's, or the strategy's name where there is none; `ours` is how our
    number is written, `recipe` how our recipe differs, or "".
    """

    strategy: str
    label: str
    shown: Entry
    quality: Interval | None
    ours: str
    recipe: str
    verdict: str


def comparisons(section: Section, found: Sequence[Standing]) -> list[Comparison]:
    """Teacher and strategies with published numbers, first ours, as `found` has them.

    A number belongs to one setting of its strategy: `kd[temperature=2]` has none.
    """
    if section.headline != TOP1:
        return []
    cells = published.cells(section.dataset, section.pair)
    standing = {
        s.strategy: s
        for s in found
        if is_published_setting(section.dataset, s.strategy, s.label)
    }
    order = ["teacher", *(s for s in standing if s in cells)]
    order += sorted(set(cells) - set(order) - {""})
    own = set(published.STRATEGIES.values()) | {"teacher", "scratch"}
    return [
        _comparison(section, cells[name][0], standing.get(name))
        for name in order
        if name in cells and name in own
    ]


def _comparison(
    section: Section, shown: Entry, standing: Standing | None
) -> Comparison:
    quality, recipe = standing.quality if standing else None, section.recipe
    status = standing.status if standing else "not run"
    if shown.strategy == "teacher":
        quality = _teacher(section)
        status = section.teacher.status if section.teacher else "not run"
        recipe = section.teacher.run.recipe if section.teacher else recipe
    differs = unlike(shown, recipe)
    judged = verdict(quality, shown.top1, same_recipe=not differs)
    if quality is None and status != "not run":
        judged = "no result"
    return Comparison(
        strategy=shown.strategy,
        label=standing.label if standing else shown.strategy,
        shown=shown,
        quality=quality,
        ours=formats.spread(quality, section.digits) if quality else status,
        recipe=differs if quality else "",
        verdict=judged,
    )


def _teacher(section: Section) -> Interval | None:
    value = section.teacher_quality
    return None if value is None else Interval(value, None, None, 1)


def published_table(section: Section) -> Table | None:
    """Ours, published and verdict for each strategy; None without published numbers."""
    found = standings(section)
    compared = comparisons(section, found)
    if not compared:
        return None
    columns = (
        Column("strategy", "Strategy", numeric=False),
        Column("top1", "Ours", "%"),
        Column("half_width", "95% half-width", "points", level=CSV_ONLY),
        Column("n", "n", level=4),
        Column("published", "Published", "%"),
        Column("source", "Source", numeric=False, level=2),
        Column("epoch", "It reports", numeric=False, level=3),
        Column("verdict", "Verdict", numeric=False),
        Column("source_text", "Source in full", numeric=False, level=8),
    )
    notes = [
        f"Verdicts: {tally(c.verdict for c in compared)}.",
        *recipe_notes(compared),
        *_notes(compared, found),
    ]
    return Table(
        key="published",
        title="Against published numbers",
        caption=CAPTION,
        columns=columns,
        rows=tuple(_row(comparison) for comparison in compared),
        notes=tuple(notes),
    )


def _row(comparison: Comparison) -> Row:
    ours, shown = comparison.quality, comparison.shown
    cells = (
        word(comparison.label),
        Cell(ours.mean if ours else None, comparison.ours),
        Cell(ours.half_width if ours else None, formats.MISSING),
        Cell(ours.n if ours else 0, str(ours.n) if ours else formats.MISSING),
        Cell(shown.top1, number(shown)),
        word(shown.source),
        word(shown.epoch),
        word(comparison.verdict),
        word(shown.told),
    )
    if ours is None:
        return Row(cells, "missing")
    reference = comparison.strategy in ("teacher", "scratch", "kd")
    return Row(cells, "reference" if reference else "plain")


def number(entry: Entry) -> str:
    """A published number, to the hundredth as the tables of the field have it."""
    return formats.fixed(entry.top1, 2)


def tally(verdicts: Iterable[str]) -> str:
    """How many of each: "3 reproduced, 1 lower, 12 not run"."""
    many = Counter(verdicts)
    return ", ".join(f"{many[name]} {name}" for name in VERDICTS if many[name])


def recipe_notes(compared: Sequence[Comparison]) -> list[str]:
    """Where our recipe is another than theirs, and that nothing follows then."""
    differing: dict[str, dict[str, None]] = {}
    for c in compared:
        if c.recipe and c.strategy != "teacher":
            differing.setdefault(c.recipe, {})[c.shown.source] = None
    notes = [
        f"Our recipe differs from that of the published numbers ({', '.join(whose)}): "
        f"{how}. They are not comparable."
        for how, whose in differing.items()
    ]
    teacher = next((c for c in compared if c.strategy == "teacher"), None)
    if teacher and teacher.recipe and teacher.recipe not in differing:
        notes.append(
            f"Our teacher's recipe differs from the published one ({teacher.recipe}): "
            "its number is not comparable, and our students had another teacher."
        )
    return notes


def _notes(compared: Sequence[Comparison], found: Sequence[Standing]) -> list[str]:
    notes = []
    flattered = [
        c.strategy for c in compared if c.verdict == "lower" and "best" in c.shown.epoch
    ]
    if flattered:
        notes.append(
            f"Lower than a best epoch ({', '.join(flattered)}): the best epoch on the "
            "test set lies above the last one, by 0.3 points on average."
        )
    labels = {c.label for c in compared}
    names = {c.strategy for c in compared}
    rest = [s for s in found if s.label not in labels]
    variants = sorted(s.label for s in rest if s.strategy in names)
    if variants:
        notes.append(
            f"Not the published setting, so not compared: {', '.join(variants)}."
        )
    without = sorted(s.label for s in rest if s.strategy not in names)
    if without:
        notes.append(f"No published number for {', '.join(without)}.")
    return notes


def elsewhere_table(section: Section) -> Table | None:
    """The published numbers that are not shown beside ours; None where all are.

    Numbers of further sources first, then methods that are no strategy of kdbench.
    """
    cells = published.cells(section.dataset, section.pair)
    shown = [c.shown for c in comparisons(section, standings(section))]
    rest = [e for entries in cells.values() for e in entries if e not in shown]
    if not shown or not rest:
        return None
    columns = (
        Column("method", "Method", numeric=False),
        Column("published", "Published", "%"),
        Column("source", "Source", numeric=False),
        Column("epoch", "It reports", numeric=False),
        Column("source_text", "Source in full", numeric=False, level=8),
    )
    rows = [
        Row(
            (
                word(entry.strategy or entry.method),
                Cell(entry.top1, number(entry)),
                word(entry.source),
                word(entry.epoch),
                word(entry.told),
            )
        )
        for entry in sorted(rest, key=lambda e: (not e.strategy, e.strategy, e.method))
    ]
    return Table(
        key="elsewhere",
        title="Other published numbers",
        caption="What further sources report for this pair, and methods that are no "
        "strategy of kdbench, by their own names.",
        columns=columns,
        rows=tuple(rows),
    )


def outcome(sections: Sequence[Section]) -> str:
    """All verdicts of a report in one sentence."""
    verdicts = [
        comparison.verdict
        for section in sections
        for comparison in comparisons(section, standings(section))
    ]
    if verdicts:
        return f"Of {len(verdicts)} published numbers: {tally(verdicts)}."
    there = "; ".join(
        f"{dataset}: {', '.join(pairs)}" for dataset, pairs in published.pairs().items()
    )
    return f"No pair here has published numbers. These have: {there}."
