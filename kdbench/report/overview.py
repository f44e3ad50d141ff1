"""One row for each student of a suite of several systems, whatever they are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kdbench.report import formats
from kdbench.report.analysis import Standing, standings
from kdbench.report.cost import Deployed, deployed, identity
from kdbench.report.sections import Section
from kdbench.report.tables import CSV_ONLY, Cell, Column, Row, Table, word

COLUMNS = (
    Column("system", "System", numeric=False),
    Column("setting", "Dataset / pair", numeric=False, level=CSV_ONLY),
    Column("strategy", "Strategy", numeric=False),
    Column("model", "Model", numeric=False, level=3),
    Column("measure", "Measure", numeric=False),
    Column("value", "Value"),
    Column("over_scratch", "Over scratch", level=2),
    Column("p_scratch", "p", "scratch", level=4),
    Column("size_bytes", "Size", "bytes"),
    Column("latency_ms", "Latency", "ms"),
    Column("n", "n", level=6),
    Column("status", "Status", numeric=False, level=CSV_ONLY),
)

CAPTION = (
    "Every system of the suite. Value: mean over n seeds ± half-width of the 95% "
    "t-interval, of the measure named (an error is better when lower). Gains over "
    "scratch are paired by seed and positive where the strategy is better; their p is "
    "Holm-adjusted within the system. Size and latency (batch 1, median) are those of "
    "the deployed model. Rows of different systems are not comparable."
)


ROUGH = (
    "~ in front of a latency: timed at the end of the model's own run, perhaps while "
    "others still trained. It may be several times too long: do not compare them."
)


def overview_table(sections: Sequence[Section]) -> Table | None:
    """Teacher and students of each system; None where the suite has no systems."""
    named = sorted((s for s in sections if s.system), key=lambda s: s.system)
    rows = [row for section in named for row in _rows(section)]
    if not rows:
        return None
    noisy = any(str(row.cells[-3].text).startswith("~") for row in rows)
    return Table(
        key="systems",
        title="Teachers and students",
        caption=CAPTION,
        columns=COLUMNS,
        rows=tuple(rows),
        notes=(ROUGH,) if noisy else (),
    )


def _rows(section: Section) -> Iterator[Row]:
    models = deployed(section)
    teachers = [m for m in models if m.role == "teacher"]
    quality = section.teacher_quality
    if quality is not None and teachers:
        text = formats.fixed(quality, section.digits)
        yield _row(section, "teacher", teachers[0], Cell(quality, text), 1, None)
    for standing in standings(section):
        yield _student(section, standing, models)


def _student(section: Section, standing: Standing, models: list[Deployed]) -> Row:
    finished = list(section.finished(standing.label).values())
    kinds = {identity(record) for record in finished}
    own = next(
        (m for m in models if m.role != "teacher" and identity(m.record) in kinds), None
    )
    quality = standing.quality
    if quality is None:
        value = Cell(None, standing.status)
    else:
        value = Cell(quality.mean, formats.spread(quality, section.digits))
    count = quality.n if quality else 0
    return _row(section, standing.label, own, value, count, standing)


def _row(
    section: Section,
    label: str,
    model: Deployed | None,
    value: Cell,
    count: int,
    standing: Standing | None,
) -> Row:
    headline = section.headline
    gain = standing.over_scratch if standing else None
    p = standing.p_scratch if standing else None
    size = model.measure("size_bytes") if model else None
    latency = model.speed_of("latency_ms") if model else None
    rough = model is not None and model.in_its_run
    unit = f" ({headline.unit})" if headline.unit else ""
    references = ("teacher", section.baseline("scratch"), section.baseline("kd"))
    return Row(
        (
            word(section.system),
            word(f"{section.dataset} / {section.pair}"),
            word(label),
            word(model.record.run.deployed if model else ""),
            word(f"{headline.title}{unit}"),
            value,
            Cell(
                gain.mean if gain else None,
                formats.spread(gain, section.digits, signed=True),
            ),
            Cell(p, formats.p_value(p)),
            Cell(size, formats.scaled(size)),
            Cell(latency, ("~" if rough else "") + formats.significant(latency)),
            Cell(count, str(count)),
            word(standing.status if standing else "finished"),
        ),
        "reference" if label in references else "plain",
    )
