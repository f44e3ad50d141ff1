"""Two folders of results, or two strategies, held against each other by tests."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kdbench import stats
from kdbench.api import UserError, unknown
from kdbench.records import Record, digest
from kdbench.report import formats
from kdbench.report.comparison import Compared, Comparison, Verdict
from kdbench.report.items import Bits
from kdbench.report.sections import Section, check_protocol, sections
from kdbench.stats import Paired
from kdbench.store import Results

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def compare_folders(
    before: Results, after: Results, *, level: float = 0.05, tolerance: float = 0.0
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
    ours, theirs = _cells(before), _cells(after)
    if not ours.keys() & theirs.keys():
        raise UserError(
            "A and B have no strategy in common on the same dataset, pair and recipe "
            f"(A: {_some(ours)}; B: {_some(theirs)}); to compare two strategies give "
            "their labels, and their folder with --in"
        )
    pairs = [
        _Both(_title(section), label, section, _runs(ours, key), _runs(theirs, key))
        for key in dict.fromkeys((*ours, *theirs))
        for section, label in [(ours | theirs)[key]]
    ]
    rows, overall = _judged(pairs, level, tolerance)
    changes = tuple(_changes(before.records, after.records))
    return Comparison(("A", "B"), rows, overall, changes, level, tolerance)


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
    pairs = [
        _Both(
            section.title, f"{b} against {a}", section, section.runs[a], section.runs[b]
        )
        for section in both
    ]
    rows, overall = _judged(pairs, level, tolerance)
    return Comparison((a, b), rows, overall, (), level, tolerance)


# --- matching -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Both:
    """The runs of one row by seed; where one side has none it is empty."""

    title: str
    label: str
    section: Section
    a: Mapping[int, Record]
    b: Mapping[int, Record]


Cells = dict[Hashable, tuple[Section, str]]


def _cells(results: Results) -> Cells:
    """Strategies by what must be equal in A and B; the engine is not."""
    check_protocol(results)
    cells: Cells = {}
    for section in sections(results):
        described = section.recipe.described()
        del described["lr_by_model"]
        for label in section.runs:
            cells[section.dataset, section.pair, digest(described), label] = (
                section,
                label,
            )
    return cells


def _runs(cells: Cells, key: Hashable) -> Mapping[int, Record]:
    if key not in cells:
        return {}
    section, label = cells[key]
    return section.runs[label]


def _title(section: Section) -> str:
    return f"{section.dataset} / {section.pair}"


def _some(cells: Cells) -> str:
    """The first settings of one side, in words."""
    titles = [f"{_title(s)} with {s.recipe.sentence()}" for s, _ in cells.values()]
    titles = list(dict.fromkeys(titles))
    return "; ".join(titles[:2]) + ("; ..." if len(titles) > 2 else "")


# --- judging --------------------------------------------------------------------------


def _judged(
    pairs: Sequence[_Both], level: float, tolerance: float
) -> tuple[tuple[Compared, ...], Paired | None]:
    rows = [_compared(pair) for pair in pairs]
    adjusted = stats.holm(
        {
            i: row.difference.p_value
            for i, row in enumerate(rows)
            if row.difference and row.verdict != "identical"
        }
    )
    judged = []
    for i, row in enumerate(rows):
        p, verdict = adjusted.get(i), row.verdict
        clear = verdict == "not significant" and p is not None and p < level
        if clear and row.difference and row.difference.mean > 0:
            verdict = "better"
        elif clear and row.difference and row.difference.mean < -tolerance:
            verdict = "worse"
        judged.append(replace(row, p_holm=p, verdict=verdict))
    return tuple(judged), _overall(rows)


def _compared(pair: _Both) -> Compared:
    name, sign = pair.section.headline.name, pair.section.sign
    a, b = (_values(runs, name) for runs in (pair.a, pair.b))
    common = sorted(a.keys() & b.keys())
    made = Compared(
        setting=pair.title,
        label=pair.label,
        headline=pair.section.headline,
        digits=pair.section.digits,
        a=stats.interval(list(a.values())).mean if a else None,
        b=stats.interval(list(b.values())).mean if b else None,
        verdict=_first_verdict(pair, a, b),
        compressed=any(r.run.compression for r in (*pair.a.values(), *pair.b.values())),
    )
    if not common:
        return made
    made = replace(
        made,
        by_seed={s: sign * (b[s] - a[s]) for s in common},
        difference=stats.paired(
            [sign * b[s] for s in common], [sign * a[s] for s in common]
        ),
    )
    if a == b and made.verdict in ("not significant", "not tested"):
        return replace(made, verdict="identical")
    return replace(
        made,
        p_sign_flip=stats.sign_flip(list(made.by_seed.values())),
        items=_items([(pair.b[s], pair.a[s]) for s in common]),
    )


def _values(runs: Mapping[int, Record], name: str) -> dict[int, float]:
    found = {s: r.measures.get(name) for s, r in runs.items() if r.status == "finished"}
    return {seed: value for seed, value in found.items() if value is not None}


def _first_verdict(
    pair: _Both, a: Mapping[int, float], b: Mapping[int, float]
) -> Verdict:
    """Before any test of the values."""
    if not pair.b:
        return "only in A"
    if not pair.a:
        return "only in B"
    lost = [s for s in a if s in pair.b and pair.b[s].status == "failed"]
    if lost:
        return "fails now"
    if any(s in pair.a and pair.a[s].status == "failed" for s in b):
        return "finishes now"
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


def _overall(rows: Sequence[Compared]) -> Paired | None:
    """Mean over the rows for each seed, then over the seeds that all rows have.

    Of the rows whose headline is the first one's; compressed students apart, who repeat
    their source. None of fewer than two rows.
    """
    kept = [r for r in rows if r.by_seed and not r.compressed]
    kept = [r for r in kept if r.headline == kept[0].headline]
    seeds = set.intersection(*(set(r.by_seed) for r in kept)) if kept else set()
    if len(kept) < 2 or not seeds:
        return None
    means = [statistics.fmean(r.by_seed[s] for r in kept) for s in sorted(seeds)]
    return stats.paired(means, [0.0] * len(means))


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
