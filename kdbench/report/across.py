"""Tables over several settings: accuracy, ranks, wins, profiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kdbench.report import formats
from kdbench.report.analysis import Standing, standings
from kdbench.report.averages import Average, Averages, averages
from kdbench.report.ranking import (
    curve_table,
    profile_table,
    ranks_table,
    references,
    scores,
)
from kdbench.report.sections import Section
from kdbench.report.tables import (
    CSV_ONLY,
    Cell,
    Column,
    Row,
    Table,
    mark_best,
    word,
)
from kdbench.report.wins import matrix_table, wins_table
from kdbench.stats import Paired, rank

MATRIX = (
    "Headline on the test set at the last epoch in each setting: mean over seeds ± "
    "half-width of the 95% t-interval; (2 of 3): over the finished runs only. "
    "Compressed students are left out. After teacher, scratch and kd stand the "
    "strategies with a result in every setting by their mean rank, then the others."
)
NEAR = (
    " †: not significantly worse than the best of its setting (paired t-tests over "
    "seeds, Holm-adjusted over all pairs of strategies), which does not mean equal."
)
AVERAGES = (
    " Mean gains: over {settings}, each weighing the same, of the strategies with a "
    "result in all of them, on seeds that finished in all; ± half-width of the 95% "
    "t-interval over the seeds' means, so for these settings and teachers, not for "
    "others; p: paired t-test of the same means, Holm-adjusted over the strategies."
)
GAP = (
    " Gap closed: the sum of the gains over scratch by the sum of the gaps between "
    "teacher and scratch, over the {settings} settings where the teacher is better."
)


def across_tables(sections: Sequence[Section]) -> Iterator[Table]:
    """Accuracy of strategies by settings, mean ranks, wins, profiles, as pages show.

    Nothing for fewer than two settings.
    """
    if len(sections) < 2:
        return
    yield matrix(sections)
    for table in (ranks_table, wins_table, profile_table):
        found = table(sections)
        if found is not None:
            yield found


def data_tables(sections: Sequence[Section]) -> Iterator[Table]:
    """What is for data files only: a row for each standing, pair and profile step."""
    if len(sections) < 2:
        return
    yield _standings_table(sections)
    for table in (matrix_table, curve_table):
        found = table(sections)
        if found is not None:
            yield found


def matrix(sections: Sequence[Section]) -> Table:
    """Strategies by settings, and the mean gains."""
    found = averages(sections)
    by_section = [
        {s.label: s for s in standings(section) if not s.compression}
        for section in sections
    ]
    known = references(sections)
    columns = _columns(sections, found)
    rows = [_teacher(sections, columns)]
    for label in _order(sections, by_section):
        row = [own.get(label) for own in by_section]
        cells = [Cell(label, label)]
        for section, standing in zip(sections, row, strict=True):
            cells += _cells(section, standing)
        cells += _means(found, found.found.get(label, Average()))
        if any(s and s.quality for s in row):
            rows.append(Row(tuple(cells), "reference" if label in known else "plain"))
        else:
            rows.append(Row(tuple(cells), "missing"))
    marked = mark_best(columns, rows)
    near = any(cell.near for row in marked for cell in row.cells)
    return Table(
        key="matrix",
        title="Accuracy by setting"
        if all(section.sign > 0 for section in sections)
        else "Headlines by setting",
        caption=_caption(found, columns, near),
        columns=columns,
        rows=marked,
        notes=tuple(_notes(sections, found)),
    )


def _columns(sections: Sequence[Section], found: Averages) -> tuple[Column, ...]:
    columns = [Column("strategy", "Strategy", numeric=False)]
    for place, section in enumerate(sections):
        headline, slug, level = section.headline, section.slug, min(8, 1 + place)
        title = section.title
        if section not in found.sections or headline.unit != "%":
            title = f"{title}, {headline.title}"
        columns += [
            Column(slug, title, headline.unit, level=level, better=headline.better),
            Column(f"{slug}_half_width", "95% half-width", level=CSV_ONLY),
            Column(f"{slug}_n", "n", level=CSV_ONLY),
        ]
    for name in found.over:
        columns += [
            Column(f"over_{name}", f"Mean over {name}", found.unit),
            Column(f"over_{name}_half_width", "95% half-width", level=CSV_ONLY),
            Column(f"p_{name}", "p", name),
            Column(f"over_{name}_n", "n", level=CSV_ONLY),
        ]
    if len(found.with_gap) > 1:
        columns.append(Column("gap", "Gap closed", "%"))
    return tuple(columns)


def _caption(found: Averages, columns: Sequence[Column], near: bool) -> str:
    text = MATRIX + (NEAR if near else "")
    if found.over:
        text += AVERAGES.format(settings=_many(found))
    if any(column.key == "gap" for column in columns):
        text += GAP.format(settings=len(found.with_gap))
    return text


def _many(found: Averages) -> str:
    """Which settings the means are over."""
    counts = {name: len(over) for name, over in found.over.items()}
    title = found.sections[0].headline.title
    if len({*counts.values()}) == 1:
        return f"the {counts.popitem()[1]} settings of {title}"
    both = ", ".join(f"{n} with {name}" for name, n in counts.items())
    return f"the settings of {title} that have the baseline ({both})"


def _order(
    sections: Sequence[Section], by_section: Sequence[dict[str, Standing]]
) -> list[str]:
    """Scratch, kd, then by mean rank, then by how many settings have a result."""
    first = references(sections)
    ranks = rank(scores(sections)).mean
    labels = dict.fromkeys(label for own in by_section for label in own)
    results = {
        label: sum(
            label in own and own[label].quality is not None for own in by_section
        )
        for label in labels
    }

    def key(label: str) -> tuple[int, float, str]:
        if label in first:
            return (first.index(label), 0.0, label)
        if label in ranks:
            return (len(first), ranks[label], label)
        return (len(first) + 1, -results[label], label)

    return sorted(labels, key=key)


def _teacher(sections: Sequence[Section], columns: Sequence[Column]) -> Row:
    cells = [Cell("teacher", "teacher")]
    for section in sections:
        quality = section.teacher_quality
        n = None if quality is None else 1
        cells += [
            Cell(quality, formats.fixed(quality, section.digits)),
            Cell(None, formats.MISSING),
            Cell(n, formats.fixed(n, 0)),
        ]
    missing = [Cell(None, formats.MISSING)] * (len(columns) - len(cells))
    return Row((*cells, *missing), "reference")


def _cells(section: Section, standing: Standing | None) -> Iterator[Cell]:
    """The mean, its half-width and n of one strategy in one setting."""
    quality = standing.quality if standing else None
    text = formats.spread(quality, section.digits)
    if standing and standing.status != "finished":
        if quality:
            text += f" ({standing.runs - standing.failed - standing.skipped}"
            text += f" of {standing.runs})"
        else:
            text = "failed" if standing.failed else "skipped"
    near = standing is not None and standing.near_best
    half = quality.half_width if quality else None
    n = quality.n if quality else 0
    yield Cell(quality.mean if quality else None, text, near=near)
    yield Cell(half, formats.fixed(half, section.digits))
    yield Cell(n, str(n))


def _means(found: Averages, average: Average) -> Iterator[Cell]:
    """The cells of the columns over settings."""
    gains = {
        "scratch": (average.over_scratch, average.p_scratch),
        "kd": (average.over_kd, average.p_kd),
    }
    for name in found.over:
        yield from _gain(*gains[name], found.digits)
    if len(found.with_gap) > 1:
        yield Cell(average.gap, formats.fixed(average.gap, 0))


def _gain(gain: Paired | None, p: float | None, digits: int) -> Iterator[Cell]:
    half = gain.half_width if gain else None
    n = gain.n if gain else None
    text = formats.spread(gain, digits, signed=True)
    yield Cell(gain.mean if gain else None, text)
    yield Cell(half, formats.fixed(half, digits))
    yield Cell(p, formats.p_value(p))
    yield Cell(n, formats.fixed(n, 0))


def _notes(sections: Sequence[Section], found: Averages) -> Iterator[str]:
    other = len(sections) - len(found.sections)
    if other:
        yield (
            f"{formats.plural(other, 'setting')} of another headline or scale cannot "
            "be averaged with these."
        )
    gains = [
        gain
        for average in found.found.values()
        for gain in (average.over_kd, average.over_scratch)
    ]
    if len(found.sections) > 1 and not found.over:
        yield (
            "No strategy has a seed in common with scratch or kd in all settings, so "
            "no gain could be averaged."
        )
    elif any(gain and gain.n == 1 for gain in gains):
        yield "A mean gain without ± is of one seed only, and cannot be tested."


def _standings_table(sections: Sequence[Section]) -> Table:
    """Every strategy of every setting in one long table, compressed students too."""
    found = [(section, s) for section in sections for s in standings(section)]
    words = [_words(section, standing) for section, standing in found]
    numbers = [_numbers(standing) for _, standing in found]
    return Table(
        key="standings",
        title="Every strategy in every setting",
        caption="The numbers of all accuracy tables, a row for each.",
        columns=(
            *(Column(name, name, numeric=False) for name in words[0]),
            *(Column(name, name) for name in numbers[0]),
        ),
        rows=tuple(
            Row(
                (
                    *map(word, own.values()),
                    *(Cell(value, formats.MISSING) for value in counted.values()),
                )
            )
            for own, counted in zip(words, numbers, strict=True)
        ),
    )


def _words(section: Section, standing: Standing) -> dict[str, str]:
    return {
        "dataset": section.dataset,
        "pair": section.pair,
        "setting": section.title,
        "strategy": standing.label,
        "family": standing.family,
        "compression": standing.compression,
        "headline": section.headline.name,
        "unit": section.headline.unit,
        "better": section.headline.better,
    }


def _numbers(standing: Standing) -> dict[str, float | None]:
    quality = standing.quality
    found: dict[str, float | None] = {
        "runs": standing.runs,
        "failed": standing.failed,
        "skipped": standing.skipped,
        "mean": quality.mean if quality else None,
        "half_width": quality.half_width if quality else None,
        "sd": quality.sd if quality else None,
        "n": quality.n if quality else 0,
    }
    for over, gain, p in (
        ("scratch", standing.over_scratch, standing.p_scratch),
        ("kd", standing.over_kd, standing.p_kd),
    ):
        found |= {
            f"over_{over}": gain.mean if gain else None,
            f"over_{over}_half_width": gain.half_width if gain else None,
            f"over_{over}_n": gain.n if gain else None,
            f"p_{over}": p,
        }
    return found | {"gap": standing.gap}
