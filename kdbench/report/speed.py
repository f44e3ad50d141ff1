"""The table of the deployed models' speed in each runtime and precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kdbench.records import SpeedRecord, Timing
from kdbench.report import formats
from kdbench.report.cost import SIZE_COLUMNS, deployed, machine_name
from kdbench.report.sections import Section
from kdbench.report.tables import CSV_ONLY, Cell, Column, Row, Table, word

SPEED_COLUMNS = (
    Column("model", "Model", numeric=False),
    Column("runtime", "Runtime", numeric=False),
    Column("precision", "Precision", numeric=False),
    Column("threads", "Threads"),
    Column("latency_ms", "Latency", "ms"),
    Column("latency_quartiles", "Latency, quartiles", "ms", level=2),
    Column("latency_ms_q1", "Latency, lower quartile", "ms", level=CSV_ONLY),
    Column("latency_ms_q3", "Latency, upper quartile", "ms", level=CSV_ONLY),
    Column("batch", "Best batch", level=1),
    Column("throughput", "Throughput", "items/s"),
    Column("throughput_quartiles", "Throughput, quartiles", "items/s", level=5),
    Column("throughput_q1", "Throughput, lower quartile", "items/s", level=CSV_ONLY),
    Column("throughput_q3", "Throughput, upper quartile", "items/s", level=CSV_ONLY),
    Column("difference", "Difference", level=3),
    Column("size_bytes", "File", "bytes", level=4),
    Column("repeats", "Repeats", level=CSV_ONLY),
    Column("spread", "Spread", level=CSV_ONLY),
    Column("others", "Others' share", level=CSV_ONLY),
    Column("noise", "Noise", numeric=False),
    Column("machine", "Machine", numeric=False),
)

SPEED_CAPTION = (
    "The same networks in other runtimes and precisions, timed in turns: medians "
    "and quartiles over blocks of passes. Latency: one item; throughput: items per "
    "second at the batch size that gives most. Difference: the largest from eager "
    "float32, over the largest output, of a network that is not trained. File: of "
    "ONNX Runtime."
)

STANDING = ("latency_ms", "throughput")
"""Measures that have columns of their own, with their quartiles."""

Entry = tuple[str, SpeedRecord]


def models_table(section: Section) -> Table | None:
    """What plugins measure of every architecture; None without such a measure."""
    entries = [(entry.model, entry.speed) for entry in deployed(section) if entry.speed]
    known = {column.key for column in SIZE_COLUMNS}
    names = sorted(
        {
            name
            for _, record in entries
            for name in record.measures
            if name not in known and not name.startswith(STANDING)
        }
    )
    if not names:
        return None
    return Table(
        key="models",
        title="Further measures of the models",
        caption="Measured once for each architecture and machine, in the units of each "
        "measure ('kdbench list measures').",
        columns=(
            Column("model", "Model", numeric=False),
            *(Column(name, name) for name in names),
            Column("machine", "Machine", numeric=False, level=CSV_ONLY),
        ),
        rows=tuple(
            Row(
                (
                    word(model),
                    *(_further(record.measures.get(name)) for name in names),
                    word(machine_name(record.environment)),
                )
            )
            for model, record in entries
        ),
    )


def _further(value: float | None) -> Cell:
    return Cell(value, formats.significant(value))


def speed_table(section: Section) -> Table | None:
    """A row for each form that was timed; None where no model has any."""
    entries = [
        (entry.model, entry.speed)
        for entry in deployed(section)
        if entry.speed is not None and entry.speed.timings
    ]
    if not entries:
        return None
    machines = {_machine(record) for _, record in entries}
    columns = SPEED_COLUMNS if len(machines) > 1 else _without_machine()
    rows = [
        _row(model, record, timing)
        for model, record in entries
        for timing in record.timings
        if timing.latency_ms is not None
    ]
    return Table(
        key="speed",
        title="Speed by runtime",
        caption=SPEED_CAPTION,
        columns=columns,
        rows=tuple(rows),
        notes=tuple(_notes(entries)),
    )


def _without_machine() -> tuple[Column, ...]:
    last = SPEED_COLUMNS[-1]
    hidden = Column(last.key, last.title, numeric=False, level=CSV_ONLY)
    return (*SPEED_COLUMNS[:-1], hidden)


def _machine(record: SpeedRecord) -> str:
    return machine_name(record.environment, threads=False)


def _row(model: str, record: SpeedRecord, timing: Timing) -> Row:
    cells = [word(model), word(timing.runtime), word(timing.precision)]
    cells.append(Cell(timing.threads, str(timing.threads)))
    cells += _quartiles(timing.latency_ms)
    cells.append(Cell(timing.batch, formats.fixed(timing.batch, 0)))
    cells += _quartiles(timing.throughput)
    off = timing.difference
    cells.append(Cell(off, formats.MISSING if off is None else f"{off:.1g}"))
    cells.append(Cell(timing.size_bytes, formats.scaled(timing.size_bytes)))
    cells.append(Cell(timing.repeats, formats.fixed(timing.repeats, 0)))
    for share in (timing.spread, timing.others):
        cells.append(Cell(share, formats.significant(share)))
    cells += [word("noisy" if timing.noisy else ""), word(_machine(record))]
    return Row(tuple(cells))


def _quartiles(found: tuple[float, float, float] | None) -> Iterator[Cell]:
    """The median, both quartiles in one cell, and each in its own."""
    low, middle, high = found or (None, None, None)
    texts = [formats.significant(value) for value in (low, middle, high)]
    yield Cell(middle, texts[1])
    yield word(f"{texts[0]} - {texts[2]}" if found else "")
    yield Cell(low, texts[0])
    yield Cell(high, texts[2])


def _notes(entries: Sequence[Entry]) -> Iterator[str]:
    for name in sorted({_machine(record) for _, record in entries}):
        mine = [record for _, record in entries if _machine(record) == name]
        governors = sorted({record.governor or "unknown" for record in mine})
        yield f"Times on: {name}; frequency governor: {', '.join(governors)}."
    timed = [t for _, record in entries for t in record.timings if t.latency_ms]
    noisy = [timing for timing in timed if timing.noisy]
    if noisy:
        spread = max(timing.spread or 0.0 for timing in noisy)
        others = max(timing.others or 0.0 for timing in noisy)
        yield (
            f"Noisy ({len(noisy)} of {formats.plural(len(timed), 'row')}): the blocks "
            f"differ too much (interquartile range up to {spread:.0%} of the median) "
            f"or other processes had too much of the cores (up to {others:.0%}). For "
            "better times remove the speed-*.json files of the results and run again "
            "on an idle machine."
        )
    without: dict[tuple[str, str], dict[str, None]] = {}
    for model, record in entries:
        for timing in record.timings:
            if timing.reason:
                form = f"{timing.runtime} {timing.precision}"
                without.setdefault((form, timing.reason), {})[model] = None
    for (form, reason), models in without.items():
        yield f"No {form} of {', '.join(models)}: {reason}."
