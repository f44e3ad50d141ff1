"""Results sorted into sections: one for each setting, the runs that may be compared."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from kdbench.records import Headline, Recipe, Record, SpeedRecord, digest
from kdbench.store import Results
from kdbench.store import check_protocol as check_protocol

Setting = tuple[str, str, str, str]


@dataclass(frozen=True, eq=False)
class Section:
    """The runs of one setting (dataset, pair, recipe, protocol).

    `runs` is label -> seed -> record, whatever became of it; `teachers` are the records
    that the runs refer to, the leading teacher (or None) apart as `teacher`.
    """

    setting: Setting
    title: str
    slug: str
    recipe: Recipe
    runs: dict[str, dict[int, Record]]
    teacher: Record | None
    teachers: list[Record]
    speed: list[SpeedRecord]
    notes: list[str] = field(default_factory=list)

    @property
    def dataset(self) -> str:
        return self.setting[0]

    @property
    def pair(self) -> str:
        return self.setting[1]

    @property
    def system(self) -> str:
        """The suite's title for these runs, if it has several systems."""
        return self.records[0].run.system

    @property
    def note(self) -> str:
        """What the suite says about them."""
        return self.records[0].run.note

    @cached_property
    def records(self) -> list[Record]:
        """All runs of students, by label and seed."""
        return [record for seeds in self.runs.values() for record in seeds.values()]

    @cached_property
    def seeds(self) -> list[int]:
        return sorted({record.run.seed for record in self.records})

    @cached_property
    def headline(self) -> Headline:
        """The measure that the strategies are ranked by."""
        return self.records[0].headline

    @property
    def sign(self) -> int:
        """1 where a higher headline is better, -1 where a lower one is."""
        return 1 if self.headline.better == "higher" else -1

    @cached_property
    def digits(self) -> int:
        """Decimals of the headline.

        Of a percentage one up to 2000 test items and two above; of a number as many as
        make four significant digits.
        """
        if self.headline.unit != "%":
            teacher = [self.teacher] if self.teacher else []
            found = [
                record.measures.get(self.headline.name)
                for record in (*self.records, *teacher)
            ]
            middle = statistics.median([abs(v) for v in found if v] or [1.0])
            return max(0, 3 - math.floor(math.log10(middle)))
        items = [record.test_items for record in self.records if record.test_items]
        return 1 if items and max(items) < 2000 else 2

    def finished(self, label: str) -> dict[int, Record]:
        """Seed -> finished record."""
        runs = self.runs.get(label, {})
        return {s: runs[s] for s in sorted(runs) if runs[s].status == "finished"}

    def values(self, label: str, measure: str) -> dict[int, float]:
        """Seed -> value of a measure, where there is one."""
        found = {s: r.measures.get(measure) for s, r in self.finished(label).items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def baseline(self, strategy: str) -> str | None:
        """The label that stands for a strategy in comparisons: its defaults.

        That is the label equal to the name, or the only label of that strategy.
        """
        if strategy in self.runs:
            return strategy
        named = {
            r.run.label
            for r in self.records
            if r.run.strategy == strategy and not r.run.compression
        }
        return named.pop() if len(named) == 1 else None

    @property
    def teacher_quality(self) -> float | None:
        """The leading teacher's headline."""
        return self.teacher.measures.get(self.headline.name) if self.teacher else None


def model_of(teacher: Record) -> str:
    """The model that a teacher's run trained."""
    return (*teacher.run.students, *teacher.run.teachers, teacher.run.label)[0]


def sections(results: Results) -> list[Section]:
    """One section for each setting that has a student run, by dataset and pair.

    Raises UserError where the records obey different protocol versions.
    """
    check_protocol(results)
    by_setting: dict[Setting, list[Record]] = defaultdict(list)
    teachers = {}
    for record in results.records:
        if record.run.is_teacher:
            teachers[record.id] = record
        else:
            by_setting[record.run.setting].append(record)
    titles = _titles(by_setting)
    slugs = _slugs(by_setting)
    return [
        _section(setting, own, titles[setting], slugs[setting], teachers, results.speed)
        for setting, own in sorted(by_setting.items())
    ]


def _titles(by_setting: dict[Setting, list[Record]]) -> dict[Setting, str]:
    """Dataset and pair, and what else is needed to tell two settings apart."""
    titles = {setting: f"{setting[0]} / {setting[1]}" for setting in by_setting}
    for more in (lambda r: r.recipe.sentence(), lambda r: f"engine {r.engine}"):
        many = Counter(titles.values())
        for setting, title in titles.items():
            if many[title] > 1:
                titles[setting] = f"{title}: {more(by_setting[setting][0].run)}"
    return titles


def _slugs(by_setting: dict[Setting, list[Record]]) -> dict[Setting, str]:
    """File-name stems, unique."""
    plain = {
        s: re.sub(r"[^a-z0-9]+", "-", f"{s[0]} {s[1]}".lower()) for s in by_setting
    }
    many = Counter(plain.values())
    return {s: f"{v}-{digest(s, 8)}" if many[v] > 1 else v for s, v in plain.items()}


def _section(
    setting: Setting,
    own: Sequence[Record],
    title: str,
    slug: str,
    known: Mapping[str, Record],
    speed: Sequence[SpeedRecord],
) -> Section:
    runs: dict[str, dict[int, Record]] = defaultdict(dict)
    for record in own:
        runs[record.run.label][record.run.seed] = record
    teacher, teachers, notes = _teachers(own, known)
    notes += filter(None, (_mixed(label, seeds) for label, seeds in runs.items()))
    return Section(
        setting=setting,
        title=title,
        slug=slug,
        recipe=own[0].run.table_recipe,
        runs=dict(runs),
        teacher=teacher,
        teachers=teachers,
        speed=[record for record in speed if record.dataset == setting[0]],
        notes=notes,
    )


def _mixed(label: str, seeds: Mapping[int, Record]) -> str:
    """What a reader must know of a label whose runs are not of one kind."""
    runs = [record.run for record in seeds.values()]
    kinds = {
        "versions of its code": len({run.code.get("strategy") for run in runs}),
        "settings of its hyper-parameters": len({str(run.params) for run in runs}),
    }
    found = [f"{many} {kind}" for kind, many in kinds.items() if many > 1]
    if not found:
        return ""
    return f"{label}: its runs are of {' and '.join(found)}; their mean mixes them."


def _teachers(
    own: Sequence[Record], by_id: Mapping[str, Record]
) -> tuple[Record | None, list[Record], list[str]]:
    """The leading teacher, all teachers, and what a reader must know about them."""
    leading = Counter(r.run.teacher_runs[0] for r in own if r.run.teacher_runs)
    wanted = dict.fromkeys(i for r in own for i in r.run.teacher_runs)
    notes = []
    if len(leading) > 1:
        notes.append(
            f"The students here learned from {len(leading)} different teacher "
            "checkpoints; the teacher row is the one most of them used."
        )
    missing = [i for i in wanted if i not in by_id]
    if missing:
        notes.append(f"No record of the teacher run {', '.join(missing)} was found.")
    if not leading:
        return None, [], notes
    first = by_id.get(leading.most_common(1)[0][0])
    return first, [by_id[i] for i in wanted if i in by_id], notes
