"""Suite + plugins -> runs with ids, in groups, and what of it is already done."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from kdbench.api import Dataset, Pair, Strategy, Tapped, UserError
from kdbench.choices import Choice, choose
from kdbench.config import Suite
from kdbench.models.chain import refuse_unstackable
from kdbench.models.taps import probe
from kdbench.pairing import is_fitted, unfit, why_muddled
from kdbench.plugins import Host, code_of
from kdbench.records import Recipe, Record, Run, digest
from kdbench.selections import with_controls

CONTROLS = ("scratch", "kd")
"""Protocol rule 2: every table holds teacher, scratch and kd from the same harness."""


@dataclass(frozen=True)
class Group:
    """Runs trained side by side: same dataset, teachers, seed and recipe.

    A group without `teachers` trains teachers. A level 4 strategy is a group of its
    own (`solo`), because it drives its own loop.
    """

    id: str
    runs: tuple[Run, ...]
    teachers: tuple[Run, ...] = ()
    solo: bool = False

    @property
    def title(self) -> str:
        run = self.runs[0]
        if run.is_teacher:
            return f"{run.dataset} teacher {run.students[0]} #{run.seed}"
        what = f" {run.label}" if self.solo else f", {len(self.runs)} runs"
        pairs = "+".join(dict.fromkeys(r.pair for r in self.runs))
        return f"{run.dataset} {pairs} seed {run.seed}{what}"


@dataclass(frozen=True)
class Plan:
    """The whole grid: `todo` in an order in which teachers come first."""

    suite: Suite
    todo: tuple[Group, ...]
    done: tuple[Run, ...]
    skipped: tuple[tuple[Run, str], ...]
    notes: tuple[str, ...] = ()

    @property
    def ids(self) -> set[str]:
        """Every run of the grid, teachers included."""
        runs = [*self.done, *(run for run, _ in self.skipped)]
        return {r.id for r in runs} | {r.id for g in self.todo for r in g.runs}


def make_plan(suite: Suite, host: Host, finished: Mapping[str, Record]) -> Plan:
    """Resolve every name of the suite, lay out the grid, and leave out what is done.

    `finished` maps ids of finished runs to their records. Raises UserError for
    anything that does not exist or cannot be configured; nothing is trained.
    """
    where = f"suite {suite.name!r}"
    added = [c for c in CONTROLS if c in host.names("strategies")]
    notes = [
        f"{name!r} is missing from the tables: no plugin that works offers it"
        for name in CONTROLS
        if name not in added
    ]
    layout = _Layout(host, suite)
    for part in suite.parts:
        for name in part.recipe.lr_by_model:
            host.model(name, f"recipe.lr_by_model of {where}")
        texts = with_controls(part.strategies, added)
        notes += [
            f"added {name!r}: every table holds it (protocol rule 2)"
            for name in texts[: len(texts) - len(part.strategies)]
        ]
        strategies = choose(texts, host, where)
        for dataset_name in part.datasets:
            dataset = host.dataset(dataset_name, where)
            for pair_name in part.pairs:
                pair = _pair(pair_name, suite, host, where)
                if part.recipe.stack:
                    students = [host.model(name) for name in pair.students]
                    refuse_unstackable(students, dataset, where)
                notes += _anew(pair, host)
                for choice in strategies:
                    layout.add(part, dataset, pair, choice)
    return layout.plan(finished, list(dict.fromkeys(notes)))


def _pair(name: str, suite: Suite, host: Host, where: str) -> Pair:
    """A pair of the suite's own, or a plugin's."""
    own = suite.define_pairs.get(name)
    if own is None:
        pair: Pair = host.get("pairs", name, where, also=suite.define_pairs).thing
        return pair
    if name in host.names("pairs"):
        raise UserError(
            f"{where} defines the pair {name!r}, and a plugin offers one of that name; "
            "give yours another"
        )
    pair = own.named(name)
    for model in (*pair.teachers, *pair.students, *pair.assistants):
        host.model(model, f"pair {name!r} of {where}")
    return pair


def _anew(pair: Pair, host: Host) -> list[str]:
    """What must be said of students that were trained elsewhere."""
    names = (*pair.students, *pair.assistants)
    known = [name for name in names if host.model(name).weights is not None]
    return [
        f"{name} of pair {pair.name!r} starts anew as a student: only as a teacher "
        "does a model keep what it learned elsewhere"
        for name in known
    ]


@dataclass
class _Layout:
    """Builds the grid cell by cell."""

    host: Host
    suite: Suite
    runs: dict[str, tuple[Run, Strategy]] = field(default_factory=dict)
    teachers: dict[str, Run] = field(default_factory=dict)
    skipped: dict[str, tuple[Run, str]] = field(default_factory=dict)
    probes: dict[tuple[object, ...], Tapped | UserError] = field(default_factory=dict)
    owners: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def add(self, part: Suite, dataset: Dataset, pair: Pair, choice: Choice) -> None:
        strategy, missing = choice.on(pair)
        students, wanted = members(pair, strategy)
        taught_by = [
            self._teacher(part, dataset, name, wanted[:k].count(name))
            for k, name in enumerate(wanted)
        ]
        # the first teacher measures fidelity, also of a strategy that learns from none
        reference = taught_by or [self._teacher(part, dataset, pair.teachers[0], 0)]
        self._claim(part, dataset, pair)
        system = part.title if self.suite.systems else ""
        for seed in range(part.seeds):
            run = Run(
                dataset=dataset.name,
                pair=pair.name,
                teachers=tuple(run.students[0] for run in reference),
                students=students,
                strategy=strategy.name,
                label=choice.label,
                params=strategy.values(),
                preset=choice.preset,
                seed=seed,
                recipe=part.recipe.of(*students),
                teacher_runs=tuple(run.id for run in reference),
                code=self._code(type(strategy), dataset, *students, *wanted),
                system=system,
                note=part.note,
            )
            reason = missing or self._reason(part.recipe, dataset, pair, strategy)
            if reason is None:
                self.runs.setdefault(run.id, (run, strategy))
                self.teachers.update({t.id: t for t in reference})
            else:
                self.skipped[run.id] = (run, reason)

    def _claim(self, part: Suite, dataset: Dataset, pair: Pair) -> None:
        """Refuse two systems whose runs would stand in one table under two names."""
        recipe = digest(part.recipe.model_dump(mode="json"))
        key = (dataset.name, pair.name, recipe)
        owner = self.owners.setdefault(key, part.title)
        if owner != part.title:
            raise UserError(
                f"suite {self.suite.name!r}: the systems {owner!r} and {part.title!r} "
                f"train the same pair {pair.name!r} on {dataset.name!r} by the same "
                "recipe; put their strategies into one system"
            )

    def _teacher(self, part: Suite, dataset: Dataset, model: str, seed: int) -> Run:
        """The run that trains this teacher: one checkpoint for all student seeds."""
        scratch = self.host.strategy("scratch")
        return Run(
            dataset=dataset.name,
            pair=model,
            teachers=(),
            students=(model,),
            strategy="teacher",
            label="teacher",
            params={},
            seed=seed,
            recipe=part.recipe.of(model),
            teacher_runs=(),
            code=self._code(scratch, dataset, model),
        )

    def _code(
        self, strategy: type[Strategy], dataset: Dataset, *models: str
    ) -> dict[str, str]:
        code = {
            "strategy": code_of(strategy),
            f"dataset {dataset.name}": code_of(dataset),
        }
        for name in models:
            code[f"model {name}"] = code_of(self.host.model(name))
        return code

    def _reason(
        self, recipe: Recipe, dataset: Dataset, pair: Pair, strategy: Strategy
    ) -> str | None:
        """Why the strategy cannot run here, or None."""
        muddled = why_muddled(strategy)
        if muddled:
            return muddled
        if dataset.task.kind not in strategy.tasks:
            return (
                f"{strategy.name} is defined for {' and '.join(strategy.tasks)}, and "
                f"{dataset.name} is a {dataset.task.kind} dataset"
            )
        students, teachers = members(pair, strategy)
        reason = unfit(
            strategy,
            [self.host.model(name) for name in students],
            [self.host.model(name) for name in teachers or pair.teachers[:1]],
            dataset,
        )
        if reason:
            return reason
        if strategy.assistants > len(pair.assistants):
            return (
                f"{strategy.name} teaches in steps, and the pair {pair.name} has no "
                "assistant: define one with a model between its teacher and student"
            )
        names = [pair.students[0], pair.teachers[0], *pair.students[1:]]
        names += pair.teachers[1 : strategy.teachers]
        names += pair.assistants[: strategy.assistants]
        sides = [self._probe(dataset, name, strategy.taps) for name in names]
        for side in sides:
            if isinstance(side, UserError):
                return str(side)
        student, teacher = sides[:2]
        assert isinstance(student, Tapped)  # noqa: S101 - narrowed by the loop above
        assert isinstance(teacher, Tapped)  # noqa: S101
        student, teacher = (
            dataclasses.replace(side, recipe=recipe) for side in (student, teacher)
        )
        try:
            return strategy.supports(student, teacher if strategy.teachers else None)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            return f"supports() raised {type(error).__name__}: {error}"

    def _probe(
        self, dataset: Dataset, name: str, taps: tuple[str, ...]
    ) -> Tapped | UserError:
        key = (dataset.name, name, taps)
        if key not in self.probes:
            self.probes[key] = self._probed(dataset, name, taps)
        return self.probes[key]

    def _probed(
        self, dataset: Dataset, name: str, taps: tuple[str, ...]
    ) -> Tapped | UserError:
        spec = self.host.model(name)
        try:
            probe(spec, (), dataset)
        except Exception as error:
            raise UserError(
                f"model {name!r} cannot take {dataset.name!r}, inputs "
                f"{dataset.input_shape}: {error}"
            ) from error
        try:
            return probe(spec, taps, dataset)
        except UserError as error:
            return error

    def plan(self, finished: Mapping[str, Record], notes: Sequence[str]) -> Plan:
        runs = [run for run, _ in self.runs.values()]
        open_runs = [run for run in runs if run.id not in finished]
        fitted = {m.thing.name for m in self.host.all("models") if is_fitted(m.thing)}
        todo = [
            Group(id=run.id, runs=(run,), solo=run.students[0] in fitted)
            for run in self.teachers.values()
            if run.id not in finished
        ]
        solo = {
            i
            for i, (run, strategy) in self.runs.items()
            if strategy.drives_itself() or run.students[0] in fitted
        }
        todo += _groups(open_runs, self.teachers, solo)
        done = [run for run in runs if run.id in finished]
        done += [run for i, run in self.teachers.items() if i in finished]
        return Plan(
            suite=self.suite,
            todo=tuple(todo),
            done=tuple(done),
            skipped=tuple(self.skipped.values()),
            notes=tuple(notes),
        )


def members(pair: Pair, strategy: Strategy) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The students and the teachers that the strategy takes of the pair, in turn."""
    students = (pair.students * strategy.students)[: strategy.students]
    assistants = pair.assistants[: strategy.assistants]
    teachers = pair.teachers * strategy.teachers
    return students + assistants, teachers[: strategy.teachers]


def _groups(
    runs: Sequence[Run], teachers: Mapping[str, Run], solo: Set[str]
) -> list[Group]:
    """Side by side what shares its batches and its first teacher; `solo` ids alone."""
    together: dict[str, list[Run]] = {}
    alone: list[Group] = []
    for run in runs:
        if run.id in solo:
            needs = tuple(teachers[i] for i in run.teacher_runs)
            alone.append(Group(id=run.id, runs=(run,), teachers=needs, solo=True))
        else:
            key = digest([run.dataset, run.teacher_runs[0], run.seed])
            together.setdefault(key, []).append(run)
    groups = []
    for members in together.values():
        ids = list(dict.fromkeys(i for run in members for i in run.teacher_runs))
        name = digest(sorted(run.id for run in members))
        needs = tuple(teachers[i] for i in ids)
        groups.append(Group(id=name, runs=tuple(members), teachers=needs))
    return groups + alone


def results_folder(out: Path, suite: Suite) -> Path:
    """Where the suite's records lie."""
    return out / suite.name
