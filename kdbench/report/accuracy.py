"""The tables about what the students know: accuracy, other measures, failures."""

from __future__ import annotations

from kdbench import stats
from kdbench.records import RMSE, TOP1
from kdbench.report import formats, published_column, quality, reach
from kdbench.report.against import Comparison, comparisons
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

CAPTION = (
    "{what} at the last epoch: mean over seeds ± half-width of the 95% "
    "t-interval, sd over seeds, n seeds. Gains over scratch and kd are differences "
    "paired by seed{turned}; each p is that of the paired t-test to its left, "
    "Holm-adjusted over the strategies of this table (the intervals are not adjusted; "
    "compressed students apart); "
    "n.s.: not significant at 0.05. Gap closed: (student - scratch) / (teacher - "
    "scratch).{further}"
)

NEAR = (
    " †: not significantly worse than the best mean (two-sided paired t-tests of all "
    "pairs of strategies, Holm-adjusted over the pairs, which allows for the best "
    "being chosen by the same runs). That is not the same as equal; where no test was "
    "possible there is no †."
)

AGREEMENT = (
    " Agreement: share of test items where student and teacher name the same class."
)

OWN = {"parameters", "macs", "size_bytes"}
"""Measures that stand in the size table."""


def _further(section: Section) -> tuple[Column, ...]:
    """Measures of the same outputs, beside the headline."""
    headline = section.headline
    if headline.name == "top1":
        return (Column("agreement", "Agreement", "%", level=3, better="higher"),)
    if headline.name == "rmse":
        return (
            Column("mae", "MAE", headline.unit, level=3, better="lower"),
            Column("r2", "R2", level=3, better="higher"),
        )
    names = {n for r in section.records for n in r.measures}
    return tuple(
        Column(
            n,
            f"{own.title} ({n.removeprefix(own.name + '_')})",
            own.unit,
            level=1,
            better=own.better,
        )
        for own in (TOP1, RMSE)
        for n in sorted(names)
        if n.startswith(f"{own.name}_") and n != headline.name
    )


def _columns(section: Section) -> tuple[Column, ...]:
    headline = section.headline
    unit = headline.gain_unit
    return (
        Column("strategy", "Strategy", numeric=False),
        Column("family", "Family", numeric=False, level=6),
        Column(headline.name, headline.title, headline.unit, better=headline.better),
        Column("half_width", "95% half-width", unit, level=CSV_ONLY),
        Column("sd", "sd", unit, level=5),
        Column("n", "n", level=2),
        Column("over_scratch", "Over scratch", unit, level=1),
        Column("over_scratch_half_width", "95% half-width", unit, level=CSV_ONLY),
        Column("p_scratch", "p", "scratch", level=1),
        Column("over_kd", "Over kd", unit),
        Column("over_kd_half_width", "95% half-width", unit, level=CSV_ONLY),
        Column("p_kd", "p", "kd"),
        Column("gap", "Gap closed", "%", level=4),
        *_further(section),
        *published_column.columns(section),
        Column("status", "Status", numeric=False, level=CSV_ONLY),
    )


def _caption(section: Section, near: bool) -> str:
    headline = section.headline
    lower = headline.better == "lower"
    text = CAPTION.format(
        what=f"{headline.title} on the test set (lower is better)"
        if lower
        else f"{headline.title} test accuracy",
        turned=", positive where the strategy is better" if lower else "",
        further=AGREEMENT if headline.name == "top1" else "",
    )
    return text + (NEAR if near else "")


def accuracy_table(section: Section) -> Table:
    """Teacher, scratch, kd, then the others by their mean headline, the best first.

    Compressed students come last, and none is marked as the best or near it.
    """
    found = standings(section)
    columns = _columns(section)
    compared = [c for c in comparisons(section, found) if c.verdict != "not run"]
    rows = mark_best(
        columns,
        [
            _teacher_row(section, compared),
            *(_row(section, s, compared) for s in found if not s.compression),
        ],
    )
    compressed = [_row(section, s, compared) for s in found if s.compression]
    near = any(cell.near for row in rows for cell in row.cells)
    return Table(
        key="accuracy",
        title="Accuracy" if section.sign > 0 else "Error",
        caption=_caption(section, near),
        columns=columns,
        rows=(*rows, *compressed),
        notes=(*_notes(section, found, near), *published_column.notes(compared)),
    )


def _teacher_row(section: Section, compared: list[Comparison]) -> Row:
    columns = _columns(section)
    quality = section.teacher_quality
    status = section.teacher.status if section.teacher else "missing"
    interval = None if quality is None else Interval(quality, None, None, 1)
    text = formats.spread(interval, section.digits)
    if interval is None and status != "finished":
        text = status
    cells = [Cell(None, formats.MISSING)] * len(columns)
    keys = [column.key for column in columns]
    cells[0] = Cell("teacher", "teacher")
    cells[keys.index(section.headline.name)] = Cell(quality, text)
    for column in _further(section):
        known = section.teacher.measures.get(column.key) if section.teacher else None
        cells[keys.index(column.key)] = _measured(known, column, section)
    if interval:
        cells[keys.index("n")] = Cell(1, "1")
    if "published" in keys:
        place = keys.index("published")
        cells[place : place + 3] = published_column.cells("teacher", compared)
    cells[keys.index("status")] = word(status)
    return Row(tuple(cells), "reference")


def _row(section: Section, standing: Standing, compared: list[Comparison]) -> Row:
    digits, quality = section.digits, standing.quality
    text = formats.spread(quality, digits)
    label = standing.label
    if quality is None and standing.status != "finished":
        text = standing.status
    elif standing.status != "finished":
        label = f"{label}, {standing.status}"
    return Row(
        (
            Cell(standing.label, label),
            word(standing.family),
            Cell(quality.mean if quality else None, text, near=standing.near_best),
            *_number(quality.half_width if quality else None, digits),
            *_number(quality.sd if quality else None, digits),
            Cell(quality.n if quality else 0, str(quality.n if quality else 0)),
            *_gain(standing.over_scratch, standing.p_scratch, digits),
            *_gain(standing.over_kd, standing.p_kd, digits),
            *_number(standing.gap, 0),
            *(
                _measured(_mean(section, standing.label, column.key), column, section)
                for column in _further(section)
            ),
            *(
                published_column.cells(standing.label, compared)
                if published_column.columns(section)
                else ()
            ),
            word(standing.status),
        ),
        _kind(section, standing),
    )


def _mean(section: Section, label: str, measure: str) -> float | None:
    values = list(section.values(label, measure).values())
    return stats.interval(values).mean if values else None


def _measured(value: float | None, column: Column, section: Section) -> Cell:
    """A percentage like the headline's; any other number with four digits."""
    if column.unit == "%":
        return Cell(value, formats.fixed(value, section.digits))
    return Cell(value, formats.MISSING if value is None else f"{value:.4g}")


def _kind(section: Section, standing: Standing) -> Kind:
    if standing.quality is None:
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


RULESET = (
    "Ruleset: published. Every strategy has its published defaults, one setting for "
    "all pairs; what differs from them stands in its label."
)


def _preset(section: Section, label: str) -> str:
    """What a label with a preset stands for, so that nobody takes it for defaults."""
    params = next(iter(section.runs[label].values())).run.params
    values = ", ".join(f"{name}={value}" for name, value in params.items())
    return f"{label}: settings chosen for this pair, not one for all ({values})."


def _notes(section: Section, found: list[Standing], near: bool) -> list[str]:
    notes = [*section.notes]
    if section.teacher:
        notes.append("Teacher: one checkpoint for all seeds.")
    else:
        notes.append("Teacher: no record, so no gap and no agreement can be given.")
    notes.append(RULESET)
    notes += [_preset(section, s.label) for s in found if "@" in s.label]
    notes += [
        f"No {name} run: the gains over {name} are unknown."
        for name in ("scratch", "kd")
        if section.baseline(name) is None
    ]
    sizes = {standing.quality.n for standing in found if standing.quality}
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
    shown = (g for s in found for g in (s.quality, s.over_scratch, s.over_kd) if g)
    if any(found.half_width == 0 for found in shown):
        notes.append(reach.CONSTANT)
    if near and (lead := reach.lead_note(section)):
        notes.append(lead)
    return notes


def further_table(section: Section) -> Table | None:
    """Measures beyond the standing ones, plugins' included; None without any."""
    shown = OWN | set(quality.measures(section))
    shown |= {column.key for column in _columns(section)}
    names = sorted({n for r in section.records for n in r.measures} - shown)
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


MOST_DECIMALS = 6
"""With more, a mean is written in powers of ten."""


def _short(found: Interval | None) -> str:
    if found is None:
        return formats.MISSING
    half = found.half_width
    if not half:
        mean = f"{found.mean:.4g}"
        return mean if half is None else f"{mean} ± 0"
    digits = max(0, 1 - int(f"{half:.1e}".split("e")[1]))
    if digits > MOST_DECIMALS:
        return f"{found.mean:.4g} ± {half:.2g}"
    return formats.spread(found, digits)


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
