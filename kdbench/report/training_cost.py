"""The tables about what training costs: in all, and where the time goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from kdbench import stats
from kdbench.records import Record
from kdbench.report import formats
from kdbench.report.analysis import standings
from kdbench.report.cost import machine_name
from kdbench.report.sections import Section
from kdbench.report.tables import CSV_ONLY, Cell, Column, Row, Table
from kdbench.store import machine

COST_COLUMNS = (
    Column("strategy", "Strategy", numeric=False),
    Column("relative", "Train time", "x scratch"),
    Column("relative_shared", "Shared charge", "x scratch"),
    Column("train_s", "Train time", "s"),
    Column("own_s", "Own", "s", level=CSV_ONLY),
    Column("data_s", "Data", "s", level=CSV_ONLY),
    Column("teacher_s", "Teacher", "s", level=CSV_ONLY),
    Column("to_scratch_s", "To scratch's level", "s", level=2),
    Column("to_scratch_epochs", "To scratch's level", "epochs", level=5),
    Column("peak_memory_bytes", "Peak memory", "bytes", level=3),
    Column("energy_j", "Energy", "J", level=3),
    Column("engine_share", "Engine's own", "%", level=6),
    Column("student_epochs", "Student epochs", level=5),
    Column("epochs_before", "Epochs before", level=CSV_ONLY),
    Column("teacher_forwards", "Teacher forwards", "batches", level=4),
    Column("adapter_parameters", "Adapter parameters", level=1),
    Column("company", "Company", "runs", level=CSV_ONLY),
    Column("loop_s", "Training loop", "s", level=CSV_ONLY),
)

COST_CAPTION = (
    "Training cost, mean over seeds. Train time charges the data pass and the "
    "teacher's forward passes in full to each strategy, as if it had trained alone; "
    "the shared charge divides them among the strategies that trained side by side. "
    "Ratios to scratch are paired by seed and taken only within one machine. Adapter "
    "parameters are trained but not deployed. To scratch's level: train time until "
    "{headline} on the test set is first as good as what scratch of the same seed ends "
    "with; it is read from the test curve, selects nothing, and takes every epoch to "
    "have lasted as long. Peak memory: "
    "weights, gradients, optimiser state and adapters, the batch, the teacher's "
    "answers and the activations of one training step, counted tensor by tensor: not "
    "the teacher itself, and the same beside others as alone. Engine's own: the "
    "part of the train time that is the tool's."
)

ENERGY_NOTE = (
    "Energy: of the GPU, or of the CPU's packages, charged by the share of the "
    "training time."
)

SPLIT_COLUMNS = (
    Column("strategy", "Strategy", numeric=False),
    Column("epoch_s", "Train time", "s/epoch"),
    Column("data_s", "Data", "s/epoch"),
    Column("teacher_s", "Teacher", "s/epoch"),
    Column("student_s", "Student", "s/epoch"),
    Column("adapters_s", "Adapters", "s/epoch", level=1),
    Column("loss_s", "Loss", "s/epoch"),
    Column("backward_s", "Backward", "s/epoch"),
    Column("graph_s", "Graph", "s/epoch", level=2),
    Column("optimiser_s", "Optimiser", "s/epoch"),
    Column("engine_s", "Engine", "s/epoch"),
    Column("evaluation_s", "Evaluation", "s/epoch", level=3),
    Column("checkpoint_s", "Checkpoints", "s/epoch", level=CSV_ONLY),
)

SPLIT_CAPTION = (
    "Seconds per epoch of training, mean over seeds. Data and teacher are charged in "
    "full. Student and adapters: their forward passes; loss: what is computed of "
    "these; backward: through all of them; engine: what the tool itself takes. "
    "Evaluation on the test set after each epoch is no part of the train time."
)

GRAPH_NOTE = (
    "Graph: forward, loss and backward replayed as one CUDA graph; student, loss and "
    "backward are then those of the few plain steps."
)

REACHED, MISSED = "in {} of {} seeds", "not reached"

NEEDED = ("graph_s", "energy_j")
"""Columns that stand there only where a run has them."""


def cost_table(section: Section) -> Table:
    """Training time and effort of every strategy that finished a run."""
    title = section.headline.title
    title = title if title.isupper() else title.lower()
    return _table(
        section,
        "cost",
        "Training cost",
        COST_CAPTION.format(headline=title),
        COST_COLUMNS,
        _cost_cells,
        _cost_notes(section),
    )


def split_table(section: Section) -> Table:
    """Seconds per epoch of every strategy that finished a run, by part."""
    finished = [r for r in section.records if r.status == "finished"]
    notes = [GRAPH_NOTE] if any(r.cost.get("graph_s") for r in finished) else []
    if any(r.cost.get("own_s") and r.cost.get("student_s") is None for r in finished):
        notes.append("A strategy with a loop of its own is not taken apart.")
    return _table(
        section,
        "split",
        "Training time by part",
        SPLIT_CAPTION,
        SPLIT_COLUMNS,
        _split_cells,
        notes,
    )


def _table(
    section: Section,
    key: str,
    title: str,
    caption: str,
    columns: Sequence[Column],
    cells: Callable[[Section, str], Mapping[str, Cell]],
    notes: Sequence[str],
) -> Table:
    """A row for each strategy that finished a run, of its cells by column."""
    references = (section.baseline("scratch"), section.baseline("kd"))
    labels = [s.label for s in standings(section) if section.finished(s.label)]
    found = {label: cells(section, label) for label in labels}
    shown = [
        column
        for column in columns
        if column.key not in NEEDED
        or any(own[column.key].value is not None for own in found.values())
    ]
    return Table(
        key=key,
        title=title,
        caption=caption,
        columns=tuple(shown),
        rows=tuple(
            Row(
                tuple(own[column.key] for column in shown),
                "reference" if label in references else "plain",
            )
            for label, own in found.items()
        ),
        notes=tuple(notes),
    )


def _cost_cells(section: Section, label: str) -> dict[str, Cell]:
    def mean(name: str) -> float | None:
        return _mean(r.cost.get(name) for r in section.finished(label).values())

    cells = {"strategy": Cell(label, label)}
    for key, name in (("relative", "train_s"), ("relative_shared", "train_shared_s")):
        value = relative(section, label, name)
        cells[key] = Cell(value, formats.ratio(value))
    for key in ("train_s", "own_s", "data_s", "teacher_s", "energy_j", "loop_s"):
        cells[key] = _number(mean(key))
    for key in ("student_epochs", "epochs_before", "company"):
        value = mean(key)
        cells[key] = Cell(value, formats.MISSING if value is None else f"{value:,.4g}")
    for key in ("teacher_forwards", "adapter_parameters", "peak_memory_bytes"):
        value = mean(key)
        cells[key] = Cell(value, formats.scaled(value))
    cells["engine_share"] = _number(
        _mean(_engine_share(r) for r in section.finished(label).values())
    )
    reached = _to_scratch(section, label)
    return cells | {
        "to_scratch_s": _reached([r and r[0] for r in reached]),
        "to_scratch_epochs": _reached([r and r[1] for r in reached]),
    }


def _split_cells(section: Section, label: str) -> dict[str, Cell]:
    cells = {"strategy": Cell(label, label)}
    for column in SPLIT_COLUMNS[1:]:
        name = "train_s" if column.key == "epoch_s" else column.key
        found = section.finished(label).values()
        cells[column.key] = _number(_mean(_per_epoch(r, name) for r in found))
    return cells


def _per_epoch(record: Record, name: str) -> float | None:
    """Of a part of the cost; None of a student that was trained, then compressed."""
    value, epochs = record.cost.get(name), _epochs(record)
    return None if value is None or not epochs else value / epochs


def _epochs(record: Record) -> int | None:
    """How many epochs its cost is of, with those before the recipe's first.

    None where its curve is that of a part of them: of a compressed student's.
    """
    if record.run.compression:
        return None
    before = int(record.cost.get("epochs_before") or 0)
    return before + len(record.curves.get(record.headline.name, ()))


def _engine_share(record: Record) -> float | None:
    """Percent of the train time."""
    own, whole = record.cost.get("engine_s"), record.cost.get("train_s")
    return None if own is None or not whole else 100 * own / whole


def _to_scratch(section: Section, label: str) -> list[tuple[float, int] | None]:
    """By seed when the run was as good as scratch ends: seconds and epochs.

    None for a seed in which it never was; seeds that cannot be told are left out.
    """
    scratch = section.baseline("scratch")
    goals = section.finished(scratch) if scratch else {}
    found: list[tuple[float, int] | None] = []
    for seed, record in section.finished(label).items():
        goal = goals[seed].curves.get(record.headline.name) if seed in goals else None
        epochs, seconds = _epochs(record), record.cost.get("train_s")
        if not goal or goal[-1] is None or not epochs or seconds is None:
            continue
        curve = record.curves[record.headline.name]
        at = _first(curve, goal[-1], section.sign)
        if at is None:
            found.append(None)
        else:
            needed = epochs - len(curve) + at
            found.append((seconds * needed / epochs, needed))
    return found


def _first(curve: Sequence[float | None], goal: float, sign: int) -> int | None:
    """The first epoch (from 1) that is at least as good as `goal`."""
    for epoch, value in enumerate(curve, 1):
        if value is not None and sign * value >= sign * goal:
            return epoch
    return None


def _reached(values: Sequence[float | None]) -> Cell:
    """The mean where every seed has a value; else words."""
    there = [value for value in values if value is not None]
    if values and not there:
        return Cell(None, MISSED)
    if len(there) < len(values):
        return Cell(None, REACHED.format(len(there), len(values)))
    return _number(_mean(there))


def _number(value: float | None) -> Cell:
    return Cell(value, formats.significant(value))


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is known."""
    known = [value for value in values if value is not None]
    return stats.interval(known).mean if known else None


def relative(section: Section, label: str, name: str) -> float | None:
    """Mean over seeds of the ratio to scratch, where both ran on one machine."""
    scratch = section.baseline("scratch")
    if scratch is None:
        return None
    alone = section.finished(scratch)
    ratios = []
    for seed, record in section.finished(label).items():
        other = alone.get(seed)
        if other is None or machine(other.environment) != machine(record.environment):
            continue
        ours, theirs = record.cost.get(name), other.cost.get(name)
        if ours is not None and theirs:
            ratios.append(ours / theirs)
    return stats.interval(ratios).mean if ratios else None


def _cost_notes(section: Section) -> list[str]:
    finished = [r for r in section.records if r.status == "finished"]
    notes = _early_notes(finished)
    if any(r.cost.get("energy_j") is not None for r in finished):
        notes.append(ENERGY_NOTE)
    names = sorted({machine_name(record.environment) for record in finished})
    if len(names) <= 1:
        return [*notes, *(f"Times on: {name}." for name in names)]
    return [
        *notes,
        f"Times come from {len(names)} machines ({'; '.join(names)}): seconds are not "
        "comparable between rows, ratios are only taken within one machine.",
    ]


def _early_notes(finished: Sequence[Record]) -> list[str]:
    """Who trained before the recipe's first epoch, and for how long."""
    by_length: dict[int, dict[str, None]] = {}
    for record in finished:
        epochs = int(record.cost.get("epochs_before") or 0)
        if epochs:
            by_length.setdefault(epochs, {})[record.run.label] = None
    parts = [f"{', '.join(names)}: {e} epochs" for e, names in by_length.items()]
    if not parts:
        return []
    return [
        f"Trained before the recipe's first epoch, and charged: {'; '.join(parts)}."
    ]
