"""The cells of a grid: which run each is, or why there is none."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from kdbench.api import (
    Compression,
    Dataset,
    Model,
    Pair,
    Strategy,
    Tapped,
    UserError,
)
from kdbench.choices import Choice
from kdbench.config import Suite
from kdbench.models.taps import probe
from kdbench.pairing import unfit, why_muddled
from kdbench.plugins import Host, code_of
from kdbench.records import Recipe, Run, digest
from kdbench.settings import Meddled, kept


@dataclass
class Layout:
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
        reason = missing or self._reason(part.recipe, dataset, pair, strategy)
        if choice.compressions:
            if reason:
                return  # the strategy's own row says why
            reason = self._why_whole(part.recipe, dataset, pair, strategy, choice)
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
            for name in choice.compressions:
                compression = self.host.get("compressions", name).thing
                run = _compressed(run, compression, self.suite)
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
            recipe=part.recipe.of_teacher(model),
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

    def _why_whole(
        self,
        recipe: Recipe,
        dataset: Dataset,
        pair: Pair,
        strategy: Strategy,
        choice: Choice,
    ) -> str | None:
        """Why the student cannot be compressed so, or None."""
        names = choice.compressions
        steps = [self.host.get("compressions", name).thing for name in names]
        for step in steps:
            why = lacks(step)
            if why:
                return why
        tuned = [step.tunes for step in steps]
        if tuned != sorted(tuned, reverse=True):
            first, then = names[tuned.index(True)], names[tuned.index(False)]
            return (
                f"{first} trains its student further, and must stand before {then}, "
                "which does not"
            )
        if self.host.model(pair.students[0]).learner == "fitted":
            return f"{pair.students[0]} is no network: there is nothing to compress"
        try:
            spec = self.host.compressed(pair.students[0], "/".join(names))
            probe(spec, (), dataset)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
            return f"{'/'.join(names)}: {error}"
        if not any(tuned):
            return None
        return _why_untuned(strategy, names[0]) or self._reason(
            recipe, dataset, pair, strategy, spec
        )

    def _reason(
        self,
        recipe: Recipe,
        dataset: Dataset,
        pair: Pair,
        strategy: Strategy,
        student: Model | None = None,
    ) -> str | None:
        """Why the strategy cannot run here, or None.

        `student` stands for the pair's leading one, where it is given.
        """
        muddled = why_muddled(strategy)
        if muddled:
            return muddled
        if dataset.task.kind not in strategy.tasks:
            return (
                f"{strategy.name} is defined for {' and '.join(strategy.tasks)}, and "
                f"{dataset.name} is a {dataset.task.kind} dataset"
            )
        names, teachers = members(pair, strategy)
        students = [self.host.model(name) for name in names]
        if student is not None:
            students[0] = student
        reason = unfit(
            strategy,
            students,
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
        others = [pair.teachers[0], *pair.students[1:]]
        others += pair.teachers[1 : strategy.teachers]
        others += pair.assistants[: strategy.assistants]
        specs = [students[0], *map(self.host.model, others)]
        sides = [self._probe(dataset, spec, strategy.taps) for spec in specs]
        for side in sides:
            if isinstance(side, UserError):
                return str(side)
        ours, theirs = sides[:2]
        assert isinstance(ours, Tapped)  # noqa: S101 - narrowed by the loop above
        assert isinstance(theirs, Tapped)  # noqa: S101
        ours, theirs = (
            dataclasses.replace(side, recipe=recipe) for side in (ours, theirs)
        )
        try:
            with kept():
                return strategy.supports(ours, theirs if strategy.teachers else None)
        except Meddled as error:
            return f"supports() {error}"
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is
            return f"supports() raised {type(error).__name__}: {error}"

    def _probe(
        self, dataset: Dataset, spec: Model, taps: tuple[str, ...]
    ) -> Tapped | UserError:
        key = (dataset.name, spec.name, taps)
        if key not in self.probes:
            if taps:
                self._probe(dataset, spec, ())  # the model's own mistakes are raised
            self.probes[key] = _probed(dataset, spec, taps)
        return self.probes[key]


def _probed(dataset: Dataset, spec: Model, taps: tuple[str, ...]) -> Tapped | UserError:
    try:
        return probe(spec, taps, dataset)
    except (Exception, SystemExit) as error:
        if taps and isinstance(error, UserError):
            return error
        raise UserError(
            f"model {spec.name!r} cannot take {dataset.name!r}, inputs "
            f"{dataset.input_shape}: {error}"
        ) from error


def lacks(step: Compression) -> str | None:
    """What a compression needs and is not there, or None."""
    try:
        return step.missing() if step.missing else None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
        return f"missing() of {step.name} raised {type(error).__name__}: {error}"


def _compressed(run: Run, compression: Compression, suite: Suite) -> Run:
    """The run that compresses what this one leaves."""
    table = run.table_recipe
    recipe = suite.fine_tuning.of(table) if compression.tunes else table
    chain = "/".join(part for part in (run.compression, compression.name) if part)
    odd = suite.fine_tuning.given if compression.tunes else {}
    how = ",".join(f"{name}={value}" for name, value in odd.items())
    return run.model_copy(
        update={
            "label": f"{run.label}/{compression.name}" + (f"[{how}]" if how else ""),
            "compression": chain,
            "source": run.id,
            "recipe": recipe,
            "beside": table if compression.tunes else None,
            "code": run.code
            | {f"compression {compression.name}": code_of(compression)},
        }
    )


def _why_untuned(strategy: Strategy, compression: str) -> str | None:
    """Why this strategy cannot train a compressed student further, or None."""
    start = f"{strategy.name} cannot train what {compression} leaves: it"
    if strategy.drives_itself():
        return f"{start} drives a training loop of its own, from a fresh student"
    if strategy.students > 1 or strategy.assistants:
        return f"{start} trains several networks, of which one student was kept"
    if strategy.deploys_another:
        return f"{start} deploys another network than its student"
    return None


def members(pair: Pair, strategy: Strategy) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The students and the teachers that the strategy takes of the pair, in turn."""
    students = (pair.students * strategy.students)[: strategy.students]
    assistants = pair.assistants[: strategy.assistants]
    teachers = pair.teachers * strategy.teachers
    return students + assistants, teachers[: strategy.teachers]
