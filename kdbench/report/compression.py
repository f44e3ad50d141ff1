"""The table about compressed students: what each was before, and what it is after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kdbench import stats
from kdbench.records import Record
from kdbench.report import formats
from kdbench.report.cost import deployed, identity
from kdbench.report.sections import Section
from kdbench.report.tables import CSV_ONLY, Cell, Column, Row, Table, word

CAPTION = (
    "Compressed students beside what they were made of: {what}, mean over seeds ± "
    "half-width of the 95% t-interval. Change: after - before, paired by seed, "
    "positive where the compressed student is better; p: paired t-test, Holm-adjusted "
    "over the rows of one compression; n.s.: not significant at 0.05. Smaller: bytes "
    "of the weights file, before over after. Faster: latency at batch 1 (eager), "
    "before over after, on one machine. 'kdbench list compressions' says what each "
    "does."
)


def compression_table(section: Section) -> Table | None:
    """One row for each compressed strategy that finished; None where there is none."""
    labels = [
        label
        for label, runs in section.runs.items()
        if next(iter(runs.values())).run.compression and section.finished(label)
    ]
    if not labels:
        return None
    gains = {label: _change(section, label) for label in labels}
    adjusted: dict[str, float | None] = {}
    for chain in {_chain(section, label) for label in labels}:
        own = {k: g for k, g in gains.items() if g and _chain(section, k) == chain}
        adjusted |= stats.holm({label: gain.p_value for label, gain in own.items()})
    headline = section.headline
    columns = (
        Column("strategy", "Strategy", numeric=False),
        Column("compression", "Compression", numeric=False, level=CSV_ONLY),
        Column("before", "Before", headline.unit),
        Column("after", "After", headline.unit),
        Column("change", "Change", headline.gain_unit),
        Column("change_half_width", "95% half-width", level=CSV_ONLY),
        Column("p", "p"),
        Column("n", "n", level=5),
        Column("size_before", "Bytes before", level=4),
        Column("size_after", "Bytes after", level=2),
        Column("smaller", "Smaller", "x"),
        Column("macs_ratio", "MACs", "before / after", level=3),
        Column("faster", "Faster", "x", level=1),
    )
    rows = [
        Row(tuple(_cells(section, label, gains[label], adjusted.get(label))))
        for label in sorted(labels, key=lambda k: (_chain(section, k), k))
    ]
    return Table(
        key="compression",
        title="Compression, before and after",
        caption=CAPTION.format(what=headline.title),
        columns=columns,
        rows=tuple(rows),
        notes=tuple(_notes(section, labels)),
    )


def _notes(section: Section, labels: Sequence[str]) -> Iterator[str]:
    """How those that were trained further were trained."""
    recipes: dict[str, list[str]] = {}
    for label in labels:
        run = next(iter(section.runs[label].values())).run
        if run.beside:
            recipes.setdefault(run.recipe.sentence(), []).append(label)
    for sentence, tuned in recipes.items():
        yield f"Trained further by the same strategy ({', '.join(tuned)}): {sentence}."


def _chain(section: Section, label: str) -> str:
    return next(iter(section.runs[label].values())).run.compression


def _pairs(section: Section, label: str) -> Iterator[tuple[Record, Record]]:
    """(before, after) of each seed that finished both."""
    by_id = {record.id: record for record in section.records}
    for record in section.finished(label).values():
        before = by_id.get(record.run.source)
        if before is not None and before.status == "finished":
            yield before, record


def _change(section: Section, label: str) -> stats.Paired | None:
    name = section.headline.name
    values = [
        (after.measures.get(name), before.measures.get(name))
        for before, after in _pairs(section, label)
    ]
    known = [(a, b) for a, b in values if a is not None and b is not None]
    if not known:
        return None
    after, before = ([pair[k] for pair in known] for k in (0, 1))
    return stats.paired(*((after, before) if section.sign > 0 else (before, after)))


def _cells(
    section: Section, label: str, gain: stats.Paired | None, p: float | None
) -> Iterator[Cell]:
    pairs = list(_pairs(section, label))
    digits = section.digits
    yield word(label)
    yield word(_chain(section, label))
    for side in (0, 1):
        values = [pair[side].measures.get(section.headline.name) for pair in pairs]
        known = [value for value in values if value is not None]
        found = stats.interval(known) if known else None
        yield Cell(found.mean if found else None, formats.spread(found, digits))
    half = gain.half_width if gain else None
    yield Cell(gain.mean if gain else None, formats.spread(gain, digits, signed=True))
    yield Cell(half, formats.fixed(half, digits))
    yield Cell(p, formats.p_value(p))
    yield Cell(len(pairs), str(len(pairs)))
    sizes = [_mean(pairs, side, "size_bytes") for side in (0, 1)]
    for size in sizes:
        yield Cell(size, formats.scaled(size))
    macs = [_mean(pairs, side, "macs") for side in (0, 1)]
    for before, after in (sizes, macs):
        ratio = before / after if before is not None and after else None
        yield Cell(ratio, formats.ratio(ratio))
    faster = _faster(section, pairs)
    yield Cell(faster, formats.ratio(faster))


def _mean(pairs: list[tuple[Record, Record]], side: int, name: str) -> float | None:
    values = [pair[side].measures.get(name) for pair in pairs]
    known = [value for value in values if value is not None]
    return stats.interval(known).mean if known else None


def _faster(section: Section, pairs: list[tuple[Record, Record]]) -> float | None:
    """Latency before over after, where one machine timed both on their own."""
    if not pairs:
        return None
    entries = [entry for entry in deployed(section) if entry.role == "student"]
    sides = []
    for record in pairs[0]:
        same = [e for e in entries if identity(e.record) == identity(record)]
        sides.append({str(e.where): e.speed_of("latency_ms") for e in same if e.speed})
    for where, before in sides[0].items():
        after = sides[1].get(where)
        if before and after:
            return before / after
    return None
