"""What the deployed models weigh, and how fast they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from kdbench.records import Record, SpeedRecord
from kdbench.report import formats
from kdbench.report.sections import Section, model_of
from kdbench.report.tables import CSV_ONLY, Cell, Column, Row, Table, word
from kdbench.store import Environment, machine

SIZE_COLUMNS = (
    Column("model", "Model", numeric=False),
    Column("role", "Role", numeric=False, level=4),
    Column("parameters", "Parameters"),
    Column("parameters_total", "Parameters, total", level=8),
    Column("macs", "MACs", level=3),
    Column("flops", "FLOPs", level=5),
    Column("size_bytes", "Size", "bytes", level=1),
    Column("size_bf16_bytes", "Size in bfloat16", "bytes", level=8),
    Column("size_int8_bytes", "Size in int8", "bytes", level=7),
    Column("activation_bytes", "Activations", "bytes", level=6),
    Column("latency_ms", "Latency", "ms"),
    Column("latency_ms_q1", "Latency, lower quartile", "ms", level=CSV_ONLY),
    Column("latency_ms_q3", "Latency, upper quartile", "ms", level=CSV_ONLY),
    Column("throughput", "Throughput", "items/s"),
    Column("throughput_q1", "Throughput, lower quartile", "items/s", level=CSV_ONLY),
    Column("throughput_q3", "Throughput, upper quartile", "items/s", level=CSV_ONLY),
    Column("smaller", "Against teacher", "parameters", level=1),
    Column("faster", "Against teacher", "latency", level=2),
    Column("machine", "Machine", numeric=False, level=CSV_ONLY),
)

SIZE_CAPTION = (
    "Size and speed of the deployed models. Parameters are those trained; in total, "
    "running statistics and scales count too. FLOPs = 2 x MACs for one input. Size: "
    "the weights file (safetensors) as deployed, and what it would be in bfloat16 and "
    "with int8 weights. Activations: the most bytes of tensors alive at once in a "
    "forward pass of one item, weights not counted. Latency: "
    "median at batch 1; throughput: items per second at the best batch size."
)


BY_ARCHITECTURE = ("size_bf16_bytes", "size_int8_bytes", "activation_bytes")
"""Sizes that are measured beside a model's speed, once for each."""


def machine_name(environment: Environment, *, threads: bool = True) -> str:
    """The machine in words."""
    cpu, device, gpu = machine(environment)
    parts = [part for part in (gpu, cpu) if part]
    many = environment.get("threads")
    if many and threads:
        parts.append(formats.plural(int(many), "thread"))
    if device:
        parts.append(f"device {device}")
    return ", ".join(parts) or "unknown machine"


@dataclass(frozen=True)
class Deployed:
    """One architecture in a section, and its speed on one machine (if measured)."""

    model: str
    role: str
    record: Record
    speed: SpeedRecord | None

    def measure(self, name: str) -> float | None:
        return self.record.measures.get(name)

    @property
    def in_its_run(self) -> bool:
        """Timed when its training ended, perhaps while others still trained."""
        return self.speed is None and "latency_ms" in self.record.measures

    @property
    def where(self) -> Environment | None:
        """The machine that it was timed on."""
        if self.speed:
            return self.speed.environment
        return self.record.environment if self.in_its_run else None

    def size_of(self, name: str) -> float | None:
        """Its own, or its architecture's, measured beside its speed."""
        own = self.record.measures.get(name)
        return own if own is not None else self.speed_of(name)

    def speed_of(self, name: str) -> float | None:
        return (self.speed or self.record).measures.get(name)


def deployed(section: Section) -> list[Deployed]:
    """Teachers, then students; one entry for each identity and machine.

    A model's identity is its parameter and MAC count: a strategy that deploys another
    network than the pair's student gets an entry of its own. So does each strategy of a
    student that is timed as trained, such as a tree: it is as large as what it learned.
    """
    found = []
    for model, role, record in _identities(section):
        timed = "latency_ms" in record.measures
        speeds = [s for s in section.speed if s.model == model and not timed]
        found += [Deployed(model, role, record, speed) for speed in speeds]
        if not speeds:
            found.append(Deployed(model, role, record, None))
    return found


def _identities(section: Section) -> Iterator[tuple[str, str, Record]]:
    seen: dict[str, Record] = {}
    for teacher in section.teachers:
        seen.setdefault(model_of(teacher), teacher)
    for model, record in seen.items():
        yield model, "teacher", record
    students: dict[str, list[Record]] = {}
    for record in section.records:
        if record.status == "finished":
            students.setdefault(record.run.deployed, []).append(record)
    for model, records in students.items():
        kinds = Counter(map(identity, records))
        for place, (kind, _) in enumerate(kinds.most_common()):
            same = [record for record in records if identity(record) == kind]
            labels = ", ".join(dict.fromkeys(r.run.label for r in same))
            if kind[2]:
                yield f"{model} by {labels}", "student", same[0]
            elif place == 0:
                yield model, "student", same[0]
            else:
                yield f"{model} as deployed by {labels}", "student", same[0]


def identity(record: Record) -> tuple[float | None, float | None, str, str]:
    """What makes it another network: parameters, MACs, and what compressed it.

    One that was timed in its run is known by who taught it, too.
    """
    label = record.run.label if "latency_ms" in record.measures else ""
    size = (record.measures.get("parameters"), record.measures.get("macs"))
    return (*size, label, record.run.compression)


def size_table(section: Section) -> Table:
    """Size and speed, with the ratio to the teacher on the same machine."""
    models = deployed(section)
    rows = [_size_row(entry, _reference(entry, models)) for entry in models]
    names = {machine_name(e.where) for e in models if e.where}
    notes = [f"Speed on: {name}." for name in sorted(names)]
    if not names:
        notes = ["Speed was not measured."]
    elif len({machine(e.where) for e in models if e.where}) < len(names):
        notes.append(
            "Small models are timed with one thread, which is faster for them: the "
            "ratios compare each model at its own number of threads."
        )
    if any(entry.in_its_run for entry in models):
        notes.append(
            "Models named with a strategy are as large and fast as what they learned: "
            "they were timed at the end of their own run (the first seed's is shown), "
            "perhaps while others still trained: such times may be several times too "
            "long."
        )
    if any(e.measure("macs") is None for e in models):
        notes.append(
            "MACs: unknown where torch's counter cannot see the arithmetic (a tree, a "
            "support vector machine)."
        )
    return Table(
        key="size",
        title="Size and speed",
        caption=SIZE_CAPTION,
        columns=_with_machine(len(names) > 1),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _with_machine(shown: bool) -> tuple[Column, ...]:
    last = SIZE_COLUMNS[-1]
    level = 0 if shown else CSV_ONLY
    return (
        *SIZE_COLUMNS[:-1],
        Column(last.key, last.title, numeric=False, level=level),
    )


def _reference(entry: Deployed, models: list[Deployed]) -> Deployed | None:
    """The leading teacher on the entry's machine."""
    teachers = [e for e in models if e.role == "teacher"]
    if entry.where is None or not teachers:
        return teachers[0] if teachers else None
    here = machine(entry.where)
    same = [e for e in teachers if e.where and machine(e.where) == here]
    return same[0] if same else teachers[0]


def _size_row(entry: Deployed, teacher: Deployed | None) -> Row:
    macs = entry.measure("macs")
    cells = [word(entry.model), word(entry.role)]
    counts = (entry.measure("parameters"), entry.measure("parameters_total"))
    files = map(entry.size_of, ("size_bytes", *BY_ARCHITECTURE))
    for value in (*counts, macs, macs and 2 * macs, *files):
        cells += [Cell(value, formats.scaled(value))]
    for name in ("latency_ms", "throughput"):
        for value in map(entry.speed_of, (name, f"{name}_q1", f"{name}_q3")):
            cells += [Cell(value, formats.significant(value))]
    smaller = faster = None
    if teacher is not None and teacher.model != entry.model:
        smaller = _quotient(teacher.measure("parameters"), entry.measure("parameters"))
        if _same_machine(entry, teacher):
            faster = _quotient(
                teacher.speed_of("latency_ms"), entry.speed_of("latency_ms")
            )
    cells.append(Cell(smaller, formats.times(smaller, "smaller", "larger")))
    cells.append(Cell(faster, formats.times(faster, "faster", "slower")))
    cells.append(word(machine_name(entry.where) if entry.where else ""))
    return Row(tuple(cells), "reference" if entry.role == "teacher" else "plain")


def _same_machine(a: Deployed, b: Deployed) -> bool:
    if a.where is None or b.where is None:
        return False
    return machine(a.where) == machine(b.where)


def _quotient(a: float | None, b: float | None) -> float | None:
    return None if a is None or not b else a / b
