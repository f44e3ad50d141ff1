"""The tables about what the students know: accuracy, other measures, failures."""

from __future__ import annotations

from kdbench import stats
from kdbench.report import formats
from kdbench.report.analysis import Standing, standings
from kdbench.report.sections import Section
from kdbench.report.tables import (
    CSV_ONLY,
    Cell,
    Column,
    Kind,
    Row,
    Table,
    mark_best,
    word,
)
from kdbench.stats import Interval, Paired

COLUMNS = (
    Column("strategy", "Strategy", numeric=False),
    Column("family", "Family", numeric=False, level=6),
    Column("top1", "Top-1", "%", better="higher"),
    Column("half_width", "95% half-width", "points", level=CSV_ONLY),
    Column("sd", "sd", "points", level=5),
    Column("n", "n", level=2),
    Column("over_scratch", "Over scratch", "points", level=1),
    Column("over_scratch_half_width", "95% half-width", "points", level=CSV_ONLY),
    Column("p_scratch", "p", "scratch", level=1),
    Column("over_kd", "Over kd", "points"),
    Column("over_kd_half_width", "95% half-width", "points", level=CSV_ONLY),
    Column("p_kd", "p", "kd"),
    Column("gap", "Gap closed", "%", level=4),
    Column("agreement", "Agreement", unit="%", level=3, better="higher"),
    Column("status", "Status", numeric=False, level=CSV_ONLY),
)

CAPTION = (
    "Top-1 test accuracy at the last epoch: mean over seeds ± half-width of the 95% "
    "t-interval, sd over seeds, n seeds. Gains over scratch and kd are differences "
    "paired by seed; each p is that of the paired t-test to its left, Holm-adjusted "
    "over the strategies of this table (the intervals are not adjusted); n.s.: not "
    "significant at 0.05. Gap closed: (student - scratch) / (teacher - scratch). "
    "Agreement: share of test items where student and teacher name the same class."
)

KNOWN = {"top1", "agreement", "parameters", "macs", "size_bytes"}
"""Measures that have a place of their own; all others go into the further table."""


def accuracy_table(section: Section) -> Table:
    """Teacher, scratch, kd, then the others by mean top-1."""
    found = standings(section)
    rows = [_teacher_row(section), *(_row(section, standing) for standing in found)]
    return Table(
        key="accuracy",
        title="Accuracy",
        caption=CAPTION,
        columns=COLUMNS,
        rows=mark_best(COLUMNS, rows),
        notes=tuple(_notes(section, found)),
    )


def _teacher_row(section: Section) -> Row:
    top1 = section.teacher_top1
    status = section.teacher.status if section.teacher else "missing"
    interval = None if top1 is None else Interval(top1, None, None, 1)
    text = formats.spread(interval, section.digits)
    if interval is None and status != "finished":
        text = status
    cells = [Cell(None, formats.MISSING)] * len(COLUMNS)
    keys = [column.key for column in COLUMNS]
    cells[0] = Cell("teacher", "teacher")
    cells[keys.index("top1")] = Cell(top1, text)
    if interval:
        cells[keys.index("n")] = Cell(1, "1")
    cells[keys.index("status")] = word(status)
    return Row(tuple(cells), "reference")


def _row(section: Section, standing: Standing) -> Row:
    digits, top1 = section.digits, standing.top1
    text = formats.spread(top1, digits)
    label = standing.label
    if top1 is None and standing.status != "finished":
        text = standing.status
    elif standing.status != "finished":
        label = f"{label}, {standing.status}"
    return Row(
        (
            Cell(standing.label, label),
            word(standing.family),
            Cell(top1.mean if top1 else None, text),
            *_number(top1.half_width if top1 else None, digits),
            *_number(top1.sd if top1 else None, digits),
            Cell(top1.n if top1 else 0, str(top1.n if top1 else 0)),
            *_gain(standing.over_scratch, standing.p_scratch, digits),
            *_gain(standing.over_kd, standing.p_kd, digits),
            *_number(standing.gap, 0),
            *_number(standing.agreement, digits),
            word(standing.status),
        ),
        _kind(section, standing),
    )


def _kind(section: Section, standing: Standing) -> Kind:
    if standing.top1 is None:
        return "missing"
    references = (section.baseline("scratch"), section.baseline("kd"))
    return "reference" if standing.label in references else "plain"


def _number(value: float | None, digits: int) -> tuple[Cell]:
    return (Cell(value, formats.fixed(value, digits)),)


def _gain(gain: Paired | None, p: float | None, digits: int) -> tuple[Cell, Cell, Cell]:
    return (
        Cell(gain.mean if gain else None, formats.spread(gain, digits, signed=True)),
        *_number(gain.half_width if gain else None, digits),
        Cell(p, formats.p_value(p)),
    )


def _notes(section: Section, found: list[Standing]) -> list[str]:
    notes = [*section.notes]
    if section.teacher:
        notes.append("Teacher: one checkpoint for all seeds.")
    else:
        notes.append("Teacher: no record, so no gap and no agreement can be given.")
    notes += [
        f"No {name} run: the gains over {name} are unknown."
        for name in ("scratch", "kd")
        if section.baseline(name) is None
    ]
    sizes = {standing.top1.n for standing in found if standing.top1}
    if sizes == {1}:
        notes.append(
            "Intervals: unknown (1 seed). One seed allows no test, so no p-value is "
            "given and no difference here is shown to be more than chance; run with "
            "--seeds 3 or more."
        )
    elif len(sizes) > 1:
        notes.append(
            "The strategies did not all finish the same seeds; gains use the seeds "
            "that both finished, and a mean over survivors may flatter."
        )
    gains = [g for s in found for g in (s.over_scratch, s.over_kd) if g and g.n > 1]
    if any(gain.p_value is None for gain in gains):
        notes.append(
            "Where a difference is exactly the same in every seed the t-test is not "
            "defined and p is '-'."
        )
    return notes


def further_table(section: Section) -> Table | None:
    """Measures beyond the standing ones, plugins' included; None without any."""
    names = sorted({n for r in section.records for n in r.measures} - KNOWN)
    if not names:
        return None
    columns = (
        Column("strategy", "Strategy", numeric=False),
        *(Column(name, name) for name in names),
    )
    rows = []
    for standing in standings(section):
        cells = [Cell(standing.label, standing.label)]
        for name in names:
            values = list(section.values(standing.label, name).values())
            found = stats.interval(values) if values else None
            cells.append(Cell(found.mean if found else None, _short(found)))
        rows.append(Row(tuple(cells)))
    return Table(
        key="further",
        title="Further measures",
        caption="Mean over seeds ± half-width of the 95% t-interval, in the units of "
        "each measure ('kdbench list measures').",
        columns=columns,
        rows=tuple(rows),
    )


def _short(found: Interval | None) -> str:
    if found is None:
        return formats.MISSING
    text = f"{found.mean:.4g}"
    return text if found.half_width is None else f"{text} ± {found.half_width:.2g}"


def unfinished_table(section: Section) -> Table | None:
    """Every failed and skipped run with its reason; None where there are none."""
    columns = (
        Column("strategy", "Strategy", numeric=False),
        Column("seed", "Seeds", numeric=False),
        Column("status", "Status", numeric=False),
        Column("reason", "Reason", numeric=False),
    )
    seeds: dict[tuple[str, str, str], list[int]] = {}
    teachers = [("teacher", record) for record in section.teachers]
    for label, record in [*teachers, *((r.run.label, r) for r in section.records)]:
        if record.status != "finished":
            key = (label, record.status, record.reason or "no reason was recorded")
            seeds.setdefault(key, []).append(record.run.seed)
    if not seeds:
        return None
    rows = [
        Row(
            (
                word(label),
                word(", ".join(str(seed) for seed in sorted(which))),
                word(status),
                word(reason),
            )
        )
        for (label, status, reason), which in sorted(seeds.items())
    ]
    return Table(
        key="unfinished",
        title="Failed and skipped",
        caption="Runs without a result, and why.",
        columns=columns,
        rows=tuple(rows),
    )
