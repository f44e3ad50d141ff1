"""Suite + plugins -> runs with ids, in groups, and what of it is already done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from kdbench.api import Pair, UserError
from kdbench.choices import choose
from kdbench.config import Suite
from kdbench.layout import Layout
from kdbench.models.chain import refuse_unstackable
from kdbench.pairing import is_fitted
from kdbench.plugins import Host
from kdbench.records import Record, Run, digest
from kdbench.requirements import (
    applies,
    fits,
    installed,
    of_suite,
    pip_line,
    same,
    wanted,
)
from kdbench.selections import with_controls

CONTROLS = ("scratch", "kd")
"""Protocol rule 2: every table holds teacher, scratch and kd from the same harness."""


@dataclass(frozen=True)
class Group:
    """Runs trained side by side: same dataset, teachers, seed and recipe.

    A group without `teachers` trains teachers. A level 4 strategy is a group of its
    own (`solo`), because it drives its own loop. `sources` are the runs whose students
    its own start from. Those of one that is to be measured `again` have finished: they
    are given the optional measures that they lack.
    """

    id: str
    runs: tuple[Run, ...]
    teachers: tuple[Run, ...] = ()
    solo: bool = False
    sources: tuple[Run, ...] = ()
    again: bool = False

    @property
    def title(self) -> str:
        run = self.runs[0]
        if run.is_teacher:
            return f"{run.dataset} teacher {run.students[0]} #{run.seed}"
        what = f" {run.label}" if self.solo else f", {len(self.runs)} runs"
        what += ", compressed" if run.compression else ""
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
    again: tuple[Group, ...] = ()
    """Groups of finished runs that lack a measure which was asked for."""

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
    _check_requirements(suite, host, where)
    missing = {name: _why_missing(name, host) for name in CONTROLS}
    added = [name for name, why in missing.items() if not why]
    notes = [
        f"{name!r} is missing from the tables: {why}"
        for name, why in missing.items()
        if why
    ]
    for name in suite.measures:
        host.get("measures", name, where)
    layout = Layout(host, suite)
    for part in suite.parts:
        for name in part.recipe.lr_by_model:
            host.model(name, f"recipe.lr_by_model of {where}")
        texts = with_controls(part.strategies, added)
        notes += [
            f"added {name!r}: every table holds it (protocol rule 2)"
            for name in texts[: len(texts) - len(part.strategies)]
        ]
        strategies = choose(texts, host, where, part.compress)
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
    return planned(layout, finished, list(dict.fromkeys(notes)))


def _check_requirements(suite: Suite, host: Host, where: str) -> None:
    """Raise UserError, with the command that helps, where the suite lacks something."""
    problems, to_install = [], []
    for requirement in filter(applies, map(of_suite, suite.requires)):
        version = installed(requirement.name)
        if version is None or not fits(requirement, version):
            there = f"and {version} is" if version else "which is not"
            problems.append(f"{wanted(requirement)}, {there} installed")
            plugins = [p for p in host.plugins if same(p.name, requirement.name)]
            if plugins:
                name = plugins[0].distribution
                problems[-1] += f"; the plugin of this name is of {name!r}: write that"
            else:
                to_install.append(requirement)
            continue
        problems += [
            f"{wanted(requirement)}, whose plugin {plugin.name!r} is {plugin.status} "
            f"({plugin.error}); see `kdbench plugins`"
            for plugin in host.plugins
            if plugin.status != "ok" and same(plugin.distribution, requirement.name)
        ]
    if to_install:
        problems.append(pip_line(to_install))
    if problems:
        raise UserError(f"{where} requires\n  " + "\n  ".join(problems))


def _why_missing(control: str, host: Host) -> str:
    """Why a control cannot be added to a table; "" if it can."""
    if control not in host.names("strategies"):
        return "no plugin that works offers it"
    try:
        host.get("strategies", control)
    except UserError as error:  # two plugins offer it
        return str(error)
    return ""


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


def planned(
    layout: Layout, finished: Mapping[str, Record], notes: Sequence[str]
) -> Plan:
    """The layout's runs in groups, but for those that are finished."""
    runs = [run for run, _ in layout.runs.values()]
    open_runs = [run for run in runs if run.id not in finished]
    everyone = {run.id: run for run in (*layout.teachers.values(), *runs)}
    fitted = {
        name
        for name in {run.students[0] for run in everyone.values()}
        if is_fitted(layout.host.model(name))
    }
    todo = [
        Group(id=run.id, runs=(run,), solo=run.students[0] in fitted)
        for run in layout.teachers.values()
        if run.id not in finished
    ]
    solo = {
        i
        for i, (run, strategy) in layout.runs.items()
        if (strategy.drives_itself() or run.students[0] in fitted)
        and not run.compression
    }
    todo += _groups(open_runs, everyone, solo)
    done = [run for run in runs if run.id in finished]
    done += [run for i, run in layout.teachers.items() if i in finished]
    return Plan(
        suite=layout.suite,
        todo=tuple(todo),
        done=tuple(done),
        skipped=tuple(layout.skipped.values()),
        notes=tuple(notes),
        again=_lacking(layout, [finished[run.id] for run in done], everyone),
    )


def _lacking(
    layout: Layout, records: Sequence[Record], everyone: Mapping[str, Run]
) -> tuple[Group, ...]:
    """Groups of the finished runs that have not all of the suite's measures."""
    host, groups = layout.host, dict[str, list[Run]]()
    asked = [host.get("measures", name).thing for name in layout.suite.measures]
    names = host.names("measures")
    for record in records:
        run = record.run
        kind = host.dataset(run.dataset).task.kind
        known = {measure_of(k, names) for k in (*record.measures, *record.lists)}
        if any(
            measure.scope == "run" and kind in measure.tasks
            for measure in asked
            if measure.name not in known
        ):
            same = [run.dataset, run.teacher_runs, run.seed, run.recipe.described()]
            key = digest([*same, "again"])
            groups.setdefault(key, []).append(everyone[run.id])
    return tuple(
        Group(
            id=digest([key, *(run.id for run in runs)]),
            runs=tuple(runs),
            teachers=tuple(everyone[i] for i in runs[0].teacher_runs),
            again=True,
        )
        for key, runs in groups.items()
    )


def measure_of(key: str, names: Sequence[str]) -> str:
    """The measure that a number of a record is of: `name`, or `name_key`."""
    owners = [name for name in names if f"{key}_".startswith(f"{name}_")]
    return max(owners, key=len, default="")


def _groups(
    runs: Sequence[Run], everyone: Mapping[str, Run], solo: Set[str]
) -> list[Group]:
    """Side by side what shares its batches and its first teacher; `solo` ids alone.

    Students that are compressed follow those that they are made of.
    """
    together: dict[str, list[Run]] = {}
    alone: list[Group] = []
    for run in runs:
        if run.id in solo:
            needs = tuple(everyone[i] for i in run.teacher_runs)
            alone.append(Group(id=run.id, runs=(run,), teachers=needs, solo=True))
        else:
            stage = [run.rank, run.measured_only]
            key = digest([run.dataset, run.teacher_runs[0], run.seed, stage])
            together.setdefault(key, []).append(run)
    groups = []
    for members in together.values():
        ids = list(dict.fromkeys(i for run in members for i in run.teacher_runs))
        name = digest(sorted(run.id for run in members))
        needs = tuple(everyone[i] for i in ids)
        sources = dict.fromkeys(run.source for run in members if run.source)
        groups.append(
            Group(
                id=name,
                runs=tuple(members),
                teachers=needs,
                sources=tuple(everyone[i] for i in sources),
            )
        )
    return groups + alone


def results_folder(out: Path, suite: Suite) -> Path:
    """Where the suite's records lie."""
    return out / suite.name
