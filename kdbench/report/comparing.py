"""Two folders of results, or two strategies, held against each other by tests."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kdbench import stats
from kdbench.api import UserError, unknown
from kdbench.records import Record, digest
from kdbench.report import formats
from kdbench.report.comparison import Compared, Comparison, Overall, Verdict
from kdbench.report.items import Bits
from kdbench.report.sections import Section, check_protocol, sections
from kdbench.store import Results

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONSTANT_SEEDS = 3
"""From so many seeds on the same difference in each is taken for one: that few items
of a test set differ alike by chance is likely for two, and hardly for more."""


def compare_folders(
    before: Results,
    after: Results,
    *,
    names: tuple[str, str] = ("A", "B"),
    level: float = 0.05,
    tolerance: float = 0.0,
) -> Comparison:
    """Every strategy of two results, matched by dataset, pair, recipe and label.

    The engine and the code may differ: that is what one asks about. Raises UserError
    where the protocols differ or nothing stands in both.
    """
    versions = [
        {r.run.protocol for r in results.records} for results in (before, after)
    ]
    if versions[0] != versions[1]:
        a, b = (", ".join(sorted(v)) for v in versions)
        raise UserError(
            f"A obeys protocol {a} and B protocol {b}: such numbers cannot be "
            "compared; run one of them again"
        )
    ours, theirs = _cells(before, "A"), _cells(after, "B")
    if not ours.keys() & theirs.keys():
        raise UserError(
            "A and B have no strategy in common on the same dataset, pair and recipe "
            f"(A: {_some(ours)}; B: {_some(theirs)}); to compare two strategies give "
            "their labels, and their folder with --in"
        )
    keys = dict.fromkeys((*ours, *theirs))
    recipes = Counter(key[:2] for key in {key[:3]: None for key in keys})
    pairs = []
    for key in keys:
        section, label = (ours | theirs)[key]
        title = _title(section, with_recipe=recipes[key[:2]] > 1)
        pairs.append(_Both(title, label, section, _runs(ours, key), _runs(theirs, key)))
    rows = _judged(pairs, level, tolerance, skips_count=True)
    changes = tuple(_changes(before.records, after.records))
    damaged = _named((*before.damaged, *after.damaged))
    found = (rows, _overall(rows), changes, damaged)
    return Comparison(names, *found, level, tolerance)


def compare_strategies(
    results: Results, a: str, b: str, *, level: float = 0.05, tolerance: float = 0.0
) -> Comparison:
    """Strategy B against strategy A, by label, in every setting that has both.

    Raises UserError for a label that no run has, and where no setting has both.
    """
    found = sections(results)
    labels = {label for section in found for label in section.runs}
    for label in (a, b):
        if label not in labels:
            raise unknown("strategy", label, labels, "these results")
    both = [section for section in found if a in section.runs and b in section.runs]
    if not both:
        raise UserError(f"no setting has runs of both {a} and {b}")
    pairs = [_Both(s.title, f"{b} against {a}", s, s.runs[a], s.runs[b]) for s in both]
    rows = _judged(pairs, level, tolerance, skips_count=False)
    told = (rows, _overall(rows), (), _named(results.damaged))
    return Comparison((a, b), *told, level, tolerance)


# --- matching -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Both:
    """The runs of one row by seed; where one side has none it is empty."""

    title: str
    label: str
    section: Section
    a: Mapping[int, Record]
    b: Mapping[int, Record]


Key = tuple[str, str, str, str]
Cells = dict[Key, tuple[Section, str]]


def _cells(results: Results, side: str) -> Cells:
    """Strategies by what must be equal in A and B; the engine is not."""
    check_protocol(results)
    cells: Cells = {}
    for section in sections(results):
        described = section.recipe.described()
        del described["lr_by_model"]
        for label in section.runs:
            key = (section.dataset, section.pair, digest(described), label)
            if key in cells:
                raise UserError(
                    f"{side} holds {label} on {_title(section)} twice, by engines of "
                    "different versions; keep these in folders of their own"
                )
            cells[key] = (section, label)
    return cells


def _runs(cells: Cells, key: Key) -> Mapping[int, Record]:
    if key not in cells:
        return {}
    section, label = cells[key]
    return section.runs[label]


def _title(section: Section, *, with_recipe: bool = False) -> str:
    title = f"{section.dataset} / {section.pair}"
    return f"{title}: {section.recipe.sentence()}" if with_recipe else title


def _named(damaged: Sequence[tuple[Path, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(path), reason) for path, reason in damaged)


def _some(cells: Cells) -> str:
    """The first settings of one side, in words."""
    titles = [f"{_title(s)} with {s.recipe.sentence()}" for s, _ in cells.values()]
    titles = list(dict.fromkeys(titles))
    return "; ".join(titles[:2]) + ("; ..." if len(titles) > 2 else "")


# --- judging --------------------------------------------------------------------------


def _judged(
    pairs: Sequence[_Both], level: float, tolerance: float, *, skips_count: bool
) -> tuple[Compared, ...]:
    rows = [_compared(pair, skips_count=skips_count) for pair in pairs]
    adjusted = stats.holm(
        {
            i: row.difference.p_value
            for i, row in enumerate(rows)
            if row.difference and row.verdict != "identical"
        }
    )
    judged = []
    for i, row in enumerate(rows):
        p, gain, verdict = adjusted.get(i), row.difference, row.verdict
        if gain and verdict in ("not significant", "fails in A", "not tested"):
            constant = gain.p_value is None and gain.n >= CONSTANT_SEEDS
            if constant or (p is not None and p < level):
                if gain.mean < -tolerance:
                    verdict = "worse"
                elif gain.mean > 0 and verdict != "fails in A":
                    verdict = "better"
        judged.append(replace(row, p_holm=p, verdict=verdict))
    return tuple(judged)


def _compared(pair: _Both, *, skips_count: bool) -> Compared:
    name, sign = pair.section.headline.name, pair.section.sign
    a, b = (_values(runs, name) for runs in (pair.a, pair.b))
    common = sorted(a.keys() & b.keys())
    made = Compared(
        dataset=pair.section.dataset,
        setting=pair.title,
        label=pair.label,
        headline=pair.section.headline,
        digits=pair.section.digits,
        verdict=_first_verdict(pair, a, b, skips_count=skips_count),
        compressed=any(r.run.compression for r in (*pair.a.values(), *pair.b.values())),
    )
    if not common:
        return made
    ours, theirs = [b[s] for s in common], [a[s] for s in common]
    made = replace(
        made,
        a=stats.interval(theirs).mean,
        b=stats.interval(ours).mean,
        by_seed={s: sign * (b[s] - a[s]) for s in common},
        difference=stats.paired([sign * v for v in ours], [sign * v for v in theirs]),
    )
    if a == b and made.verdict in ("not significant", "not tested"):
        return replace(made, verdict="identical")
    untested = made.difference is not None and made.difference.p_value is None
    if untested and made.verdict == "not significant":
        made = replace(made, verdict="not tested")
    return replace(
        made,
        p_sign_flip=stats.sign_flip(list(made.by_seed.values())),
        items=_items([(pair.b[s], pair.a[s]) for s in common]),
    )


def _values(runs: Mapping[int, Record], name: str) -> dict[int, float]:
    found = {s: r.measures.get(name) for s, r in runs.items() if r.status == "finished"}
    return {seed: value for seed, value in found.items() if value is not None}


def _first_verdict(
    pair: _Both,
    a: Mapping[int, float],
    b: Mapping[int, float],
    *,
    skips_count: bool,
) -> Verdict:
    """Before any test of the values."""
    if not pair.b:
        return "only in A"
    if not pair.a:
        return "only in B"
    lost = {pair.b[s].status for s in a if s in pair.b}
    if "failed" in lost:
        return "fails in B"
    if skips_count and "skipped" in lost:
        return "skipped in B"
    if any(s in pair.a and pair.a[s].status == "failed" for s in b):
        return "fails in A"
    return "not significant" if len(a.keys() & b.keys()) > 1 else "not tested"


def _items(runs: Sequence[tuple[Record, Record]]) -> tuple[float, float] | None:
    """In points, over test items; None where they are not the same, right or wrong."""
    right: dict[str, dict[int, NDArray[np.bool_]]] = {"a": {}, "b": {}}
    sizes = set()
    for seed, pair in enumerate(runs):
        for side, record in zip("ba", pair, strict=True):
            if not record.correct or not record.test_items:
                return None
            sizes.add(record.test_items)
            right[side][seed] = stats.unpack(record.correct, record.test_items)
    found = Bits(right).compare("b", "a") if len(sizes) == 1 else None
    return (found.low, found.high) if found else None


def _overall(rows: Sequence[Compared]) -> Overall | None:
    """Mean over the rows for each seed, then over the seeds that all rows have.

    Of the commonest scale; compressed students apart, who repeat their source. None of
    fewer than two rows.
    """
    known = [row for row in rows if row.by_seed and not row.compressed]
    scales = [row.scale for row in known]
    kept = [r for r in known if scales.count(r.scale) == max(map(scales.count, scales))]
    kept = [row for row in kept if row.scale == kept[0].scale]
    seeds = set.intersection(*(set(r.by_seed) for r in kept)) if kept else set()
    if len(kept) < 2 or not seeds:
        return None
    means = [statistics.fmean(r.by_seed[s] for r in kept) for s in sorted(seeds)]
    unit = kept[0].headline.gain_unit
    return Overall(
        stats.paired(means, [0.0] * len(means)),
        len(kept),
        f" {unit}" if unit else "",
        max(row.digits for row in kept),
    )


def _changes(
    a: Sequence[Record], b: Sequence[Record]
) -> Iterator[tuple[str, str, str]]:
    """What the runs of A and B were made with, where it differs."""
    ours, theirs = _made_with(a), _made_with(b)
    for name in sorted(ours.keys() | theirs.keys()):
        here, there = (
            ", ".join(sorted(side.get(name, ()))) or formats.MISSING
            for side in (ours, theirs)
        )
        if here != there:
            yield name, here, there


def _made_with(records: Sequence[Record]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for record in records:
        found["engine"].add(str(record.run.engine))
        found[record.plugin.get("distribution", "plugin")].add(
            record.plugin.get("version", "")
        )
        for name, value in record.environment.items():
            found[name].add(str(value))
        for name, code in record.run.code.items():
            own = f"{record.run.strategy}" if name == "strategy" else name
            found[f"code of {own}"].add(code)
    return found
