"""What `kdbench profile` prints: two tables, and in words what to make of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from kdbench.profiles import Profile
from kdbench.records import Timing
from kdbench.report import formats
from kdbench.report.cost import machine_name
from kdbench.report.tables import Cell, Column, Row, Table, word
from kdbench.store import Environment

SIZE_COLUMNS = (
    Column("model", "Model", numeric=False),
    Column("dataset", "Dataset", numeric=False, level=3),
    Column("parameters", "Parameters"),
    Column("parameters_total", "Parameters, total", level=4),
    Column("macs", "MACs"),
    Column("flops", "FLOPs", level=2),
    Column("size_bytes", "Size", "bytes"),
    Column("size_bf16_bytes", "Size in bfloat16", "bytes", level=1),
    Column("size_int8_bytes", "Size in int8", "bytes"),
    Column("activation_bytes", "Activations", "bytes"),
)

SPEED_COLUMNS = (
    Column("model", "Model", numeric=False),
    Column("runtime", "Runtime", numeric=False),
    Column("precision", "Precision", numeric=False),
    Column("threads", "Threads"),
    Column("latency_ms", "Latency", "ms"),
    Column("latency_quartiles", "Latency, quartiles", "ms", level=2),
    Column("throughput", "Throughput", "items/s"),
    Column("throughput_quartiles", "Throughput, quartiles", "items/s", level=4),
    Column("batch", "Batch", level=1),
    Column("difference", "Difference", level=3),
    Column("noisy", "Noisy", numeric=False),
)


def size_table(profiles: Sequence[Profile]) -> Table:
    """A row for each network."""
    return Table(
        key="size",
        title="Size",
        caption="",
        columns=SIZE_COLUMNS,
        rows=tuple(_size_row(profile) for profile in profiles),
        notes=tuple(f"{p.title}: {note}" for p in profiles for note in p.notes),
    )


def _size_row(profile: Profile) -> Row:
    keys = [column.key for column in SIZE_COLUMNS[2:]]
    values = [profile.sizes[key] for key in keys]
    cells = [Cell(value, formats.scaled(value)) for value in values]
    return Row((word(profile.title), word(profile.dataset), *cells))


def speed_table(profiles: Sequence[Profile]) -> Table:
    """A row for each form of each network that could be timed; the others in notes."""
    rows = [
        _speed_row(profile.title, timing)
        for profile in profiles
        for timing in profile.timings
        if timing.reason is None
    ]
    return Table(
        key="speed",
        title="Speed",
        caption="",
        columns=SPEED_COLUMNS,
        rows=tuple(rows),
        notes=tuple(_not_timed(profiles)),
    )


def _speed_row(title: str, timing: Timing) -> Row:
    latency, throughput = timing.latency_ms, timing.throughput
    cells = [word(title), word(timing.runtime), word(timing.precision)]
    cells.append(Cell(timing.threads, str(timing.threads)))
    for quartiles in (latency, throughput):
        low, middle, high = quartiles or (None, None, None)
        between = f"{formats.significant(low)} - {formats.significant(high)}"
        cells.append(Cell(middle, formats.significant(middle)))
        cells.append(word(between if quartiles else ""))
    cells.append(Cell(timing.batch, str(timing.batch or formats.MISSING)))
    off = timing.difference
    cells.append(Cell(off, formats.MISSING if off is None else f"{off:.1g}"))
    cells.append(word("noisy" if timing.noisy else ""))
    return Row(tuple(cells))


def _not_timed(profiles: Sequence[Profile]) -> Iterator[str]:
    """Each reason once, with the forms that it holds for."""
    by_reason: dict[tuple[str, str], dict[str, None]] = {}
    for profile in profiles:
        for timing in profile.timings:
            if timing.reason is not None:
                forms = by_reason.setdefault((profile.title, timing.reason), {})
                forms[f"{timing.runtime} {timing.precision}"] = None
    for (title, reason), forms in by_reason.items():
        yield f"{title}, {', '.join(forms)}: {reason}"


def machine_line(
    environment: Environment, threads: Sequence[int], governor: str | None
) -> str:
    """The machine, its threads and its governor in one line."""
    many = " and ".join(map(str, threads))
    return (
        f"{machine_name(environment, threads=False)}; "
        f"{many} {'thread' if threads == (1,) else 'threads'}; frequency governor "
        f"{governor or 'unknown'}"
    )


def reading(profiles: Sequence[Profile]) -> list[str]:
    """What the columns mean, and whether the times can be relied on."""
    every = [t for t in chain(*(p.timings for p in profiles)) if t.reason is None]
    lines = [
        "Times are medians: latency of one item, throughput of batches of the size "
        "shown. Difference: the largest from eager float32, over the largest output."
    ]
    noisy = [timing for timing in every if timing.noisy]
    if not noisy:
        return lines if every else []
    parts = [f"{len(noisy)} of {len(every)} timings"]
    spread = max(timing.spread or 0 for timing in noisy)
    others = max(timing.others or 0 for timing in noisy)
    parts.append(f"blocks of passes spread up to {spread:.0%} around their median")
    parts.append(f"other processes took up to {others:.0%} of the cores' time")
    return [
        *lines,
        f"Noisy: {'; '.join(parts)}. Stop what else runs here, and measure again.",
    ]
