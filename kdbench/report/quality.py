"""The tables about what accuracy does not say: calibration, fidelity, robustness."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

from kdbench import stats
from kdbench.records import Record
from kdbench.report import formats
from kdbench.report.analysis import standings
from kdbench.report.sections import Section
from kdbench.report.tables import (
    CSV_ONLY,
    Cell,
    Column,
    Row,
    Table,
    Value,
    mark_best,
)

CAPTION = (
    "On the test set at the last epoch: mean over seeds, in brackets the sd over seeds "
    "where there are several. Lower is better for NLL, ECE and KL, higher for the "
    "others. Worst class: the lowest top-1 of a class. NLL: mean cross-entropy to the "
    "labels. ECE: expected calibration error over 15 equal bins of the top-1 "
    "confidence, closed on the right; scaled: after division of the logits by one "
    "temperature, fitted by NLL on the validation split (where the recipe has one). "
    "Agreement: items where student and teacher name the same class, and of those that "
    "the teacher gets wrong. KL: from the teacher's probabilities to the student's, at "
    "temperature 1."
)
CORRUPTION = (
    "Corrupted: top-1 on test images with gaussian noise, gaussian blur and less "
    "contrast, each the mean over severities 1 to 5 of CIFAR-10-C."
)
CKA = (
    "CKA: linear, of the features before the classifiers of student and teacher; 1 "
    "where they are the same but for rotation and scale."
)


@dataclass(frozen=True)
class _Shown:
    """A measure, or a `part` of one, and how it is shown.

    A percentage has as many decimals as the headline, others `digits`.
    """

    name: str
    title: str
    unit: str = "%"
    better: Literal["higher", "lower"] | None = "higher"
    level: int = 0
    part: str = ""
    digits: int = 3

    def key(self, head: str) -> str:
        """What records call it."""
        return "_".join(text for text in (self.name, head, self.part) if text)


SHOWN = (
    _Shown("top5", "Top-5", level=3),
    _Shown("worst_class", "Worst class", level=4),
    _Shown("nll", "NLL", "nats", "lower"),
    _Shown("ece", "ECE", better="lower"),
    _Shown("ece_scaled", "ECE scaled", better="lower", level=2),
    _Shown("temperature_scaled", "Its temperature", "", None, level=6, digits=2),
    _Shown("agreement", "Agreement"),
    _Shown("agreement_wrong", "Where the teacher errs", level=1),
    _Shown("teacher_kl", "KL to teacher", "nats", "lower"),
    _Shown("corruption", "Corrupted"),
    _Shown("corruption", "Noise", level=5, part="noise"),
    _Shown("corruption", "Blur", level=5, part="blur"),
    _Shown("corruption", "Contrast", level=5, part="contrast"),
)
OF_NETWORK = (_Shown("cka", "CKA", "", level=1),)


def measures(section: Section) -> dict[str, tuple[_Shown, str]]:
    """By what records call it: each measure of this table, and of which head."""
    names = {name for record in _all(section) for name in record.measures}
    heads = [n.removeprefix("top1").removeprefix("_") for n in names if _is_top1(n)]
    found = product(sorted(heads) or [""], SHOWN)
    of_heads = {shown.key(head): (shown, head) for head, shown in found}
    return of_heads | {shown.key(""): (shown, "") for shown in OF_NETWORK}


def _is_top1(name: str) -> bool:
    return name == "top1" or name.startswith("top1_")


def _all(section: Section) -> list[Record]:
    teacher = [section.teacher] if section.teacher else []
    return [*teacher, *section.records]


def quality_table(section: Section) -> Table | None:
    """Teacher, then the strategies that finished; None where nothing was measured."""
    there = {
        name: which
        for name, which in measures(section).items()
        if any(record.measures.get(name) is not None for record in _all(section))
    }
    if not there:
        return None
    columns = [Column("strategy", "Strategy", numeric=False)]
    for name, (shown, head) in there.items():
        title = f"{shown.title} ({head})" if head else shown.title
        columns += [
            Column(name, title, shown.unit, level=shown.level, better=shown.better),
            Column(f"{name}_sd", f"{title}, sd", shown.unit, level=CSV_ONLY),
        ]
    rows = [_row(section, "teacher", there)] if section.teacher else []
    rows += [
        _row(section, standing.label, there)
        for standing in standings(section)
        if section.finished(standing.label)
    ]
    known = {shown.name for shown, _ in there.values()}
    compressed = [s.label for s in standings(section) if s.compression]
    return Table(
        key="quality",
        title="Quality",
        caption=CAPTION,
        columns=tuple(columns),
        rows=mark_best(columns, rows, apart=compressed),
        notes=tuple(
            text
            for name, text in (("corruption", CORRUPTION), ("cka", CKA))
            if name in known
        ),
    )


def _row(section: Section, label: str, there: dict[str, tuple[_Shown, str]]) -> Row:
    cells = [Cell(label, label)]
    for name, (shown, _) in there.items():
        cells += _cells(_values(section, label, name), _digits(section, shown))
    references = ("teacher", section.baseline("scratch"), section.baseline("kd"))
    return Row(tuple(cells), "reference" if label in references else "plain")


def _values(section: Section, label: str, name: str) -> list[float]:
    if label == "teacher" and section.teacher:
        value = section.teacher.measures.get(name)
        return [] if value is None else [value]
    return list(section.values(label, name).values())


def _digits(section: Section, shown: _Shown) -> int:
    if shown.unit != "%":
        return shown.digits
    return section.digits if section.headline.unit == "%" else 2


def _cells(values: list[float], digits: int) -> tuple[Cell, Cell]:
    """The mean with its sd in brackets, and the sd alone."""
    if not values:
        return (Cell(None, formats.MISSING), Cell(None, formats.MISSING))
    found = stats.interval(values)
    text, sd = (formats.fixed(value, digits) for value in (found.mean, found.sd))
    if found.sd is not None:
        text = f"{text} ({sd})"
    return (Cell(found.mean, text), Cell(found.sd, sd))


PER_CLASS = ("strategy", "seed", "head", "class", "top1")


def per_class_rows(section: Section) -> Iterator[tuple[str, int, str, int, Value]]:
    """`PER_CLASS` for every run: top-1 in percent of each class, numbered from 0.

    For data files: there are too many for a table.
    """
    for record in _all(section):
        label, seed = record.run.label, record.run.seed
        for head, values in _per_class(record):
            for number, value in enumerate(values):
                yield label, seed, head, number, value


def _per_class(record: Record) -> Iterator[tuple[str, list[float | None]]]:
    """Head -> top-1 of each class."""
    for name, values in record.lists.items():
        if name.startswith("per_class_top1"):
            yield name.removeprefix("per_class_top1").removeprefix("_"), values
