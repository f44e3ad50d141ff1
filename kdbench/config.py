"""Suite TOML -> Suite: the first step of the data flow.

Errors name the file, the line and the key, with near matches.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from kdbench.api import Pair, UserError, unknown
from kdbench.records import Recipe, Strict
from kdbench.requirements import of_suite


class PairDefinition(Strict):
    """A pair of the suite's own: model names, one or several on each side."""

    teacher: str | tuple[str, ...]
    student: str | tuple[str, ...]
    assistant: str | tuple[str, ...] = ()
    summary: str = ""

    def named(self, name: str) -> Pair:
        return Pair(
            name=name,
            teachers=_names(self.teacher),
            students=_names(self.student),
            assistants=_names(self.assistant),
            summary=self.summary,
        )


def _names(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


class FineTuning(Strict):
    """How a compressed student is trained further, where a compression does so.

    What is not given is `Recipe.fine_tuning`'s.
    """

    epochs: int | None = Field(default=None, ge=1)
    lr: float | None = Field(default=None, gt=0)
    schedule: Literal["constant", "cosine", "one-cycle"] | None = None

    @property
    def given(self) -> dict[str, Any]:
        """What is not the rule's."""
        return self.model_dump(exclude_none=True)

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe of the fine-tuning after a training by this one."""
        given = self.given
        tuned = recipe.fine_tuning(given.pop("epochs", None))
        if "lr" in given:
            given["lr_by_model"] = {}
        return tuned.model_copy(update=given)


class System(Strict):
    """One part of a suite: what differs from the suite's own keys, key by key."""

    title: str = Field(min_length=1)
    note: str = ""
    datasets: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    compress: tuple[str, ...] = ()
    seeds: int | None = Field(default=None, ge=1, le=1000)
    recipe: Recipe = Recipe()


class Suite(Strict):
    """Datasets x pairs x strategies x seeds, and the recipe they are trained by.

    Or several such grids in one: a table [[systems]] for each. `extends` names a suite
    file beside this one, whose keys hold where this one does not give its own.
    `compress` is done to every strategy's student; `measures` are optional ones.
    `requires` names distributions that must be there, "kdbench-soft-targets>=1".
    """

    name: str
    extends: str = ""
    title: str = ""
    note: str = ""
    requires: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    compress: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()
    seeds: int = Field(default=3, ge=1, le=1000)
    recipe: Recipe = Recipe()
    fine_tuning: FineTuning = FineTuning()
    define_pairs: dict[str, PairDefinition] = Field(default_factory=dict)
    systems: tuple[System, ...] = ()

    @property
    def parts(self) -> tuple[Suite, ...]:
        """One grid for each system; the suite itself where it has none."""
        return tuple(map(self._part, self.systems)) or (self,)

    def _part(self, system: System) -> Suite:
        given = system.model_dump(exclude_defaults=True, exclude={"recipe"})
        own = self.model_dump(exclude={"systems", "recipe", "note"}) | given
        changes = system.recipe.model_dump(exclude_unset=True)
        return Suite(**own, recipe=Recipe(**self.recipe.model_dump() | changes))

    @field_validator("systems", mode="before")
    @classmethod
    def _is_a_list(cls, systems: object) -> object:
        if not isinstance(systems, dict):
            return systems
        raise ValueError("write [[systems]], with two brackets, for each of them")

    @model_validator(mode="after")
    def _whole(self) -> Suite:
        titles = [system.title for system in self.systems]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"two systems have the title {title!r}")
        for part in self.systems or (self,):
            where = f" of system {part.title!r}" if self.systems else ""
            for key in ("datasets", "pairs", "strategies"):
                if not getattr(part, key) and not getattr(self, key):
                    raise ValueError(f"key '{key}'{where} is missing or empty")
        return self

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        if not re.fullmatch(r"[\w.+-]+", name) or name.startswith("."):
            raise ValueError("a suite's name becomes a folder: letters, digits, -_.+")
        return name

    @field_validator("requires")
    @classmethod
    def _can_be_looked_up(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            of_suite(text)
        return texts

    @field_validator("define_pairs")
    @classmethod
    def _has_both_sides(
        cls, pairs: dict[str, PairDefinition]
    ) -> dict[str, PairDefinition]:
        for name, pair in pairs.items():
            if not name or set(name) & set("[], \t\n"):
                raise ValueError(f"{name!r} is no name (no blanks or brackets)")
            if not (pair.teacher and pair.student):
                raise ValueError(f"{name} needs a teacher and a student")
        return pairs

    @field_validator("datasets", "pairs", "strategies", "compress", "measures")
    @classmethod
    def _named_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(names))


def read_suite(path: Path) -> Suite:
    """Parse and check a suite file; its name is the file's name without ending."""
    return _read(path, ())


def _read(path: Path, extending: tuple[Path, ...]) -> Suite:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"suite file {path} cannot be read: {error}") from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"suite file {path} is not valid TOML: {error}") from error
    try:
        base = _extended(path, values, extending)
        return Suite(**{**base, "name": path.stem, **values})
    except ValidationError as error:
        raise UserError(_explain(error, f"suite file {path}", text)) from None


def _extended(
    path: Path, values: dict[str, Any], extending: tuple[Path, ...]
) -> dict[str, Any]:
    """The keys of the suite that this one extends; its recipe goes into `values`."""
    if not isinstance(values.get("extends", 0), str):  # absent, or refused later
        return {}
    if path in extending:
        raise UserError(f"suite file {path} extends itself, by way of {extending[-1]}")
    parent = path.parent / values["extends"]
    if not parent.is_file():
        raise UserError(
            f"suite file {path} extends {values['extends']!r}, and there is no file of "
            f"this name beside it"
        )
    base = _read(parent, (*extending, path)).model_dump(exclude_unset=True)
    own = values.get("recipe", {})
    if isinstance(own, dict):
        values["recipe"] = base.get("recipe", {}) | own
    pairs = values.get("define_pairs", {})
    if isinstance(pairs, dict):
        values["define_pairs"] = base.get("define_pairs", {}) | pairs
    required = values.get("requires", [])
    if isinstance(required, list):
        both = [*base.get("requires", ()), *required]
        values["requires"] = [r for k, r in enumerate(both) if r not in both[:k]]
    tuning = values.get("fine_tuning", {})
    if isinstance(tuning, dict):
        values["fine_tuning"] = base.get("fine_tuning", {}) | tuning
    return base


def changed(suite: Suite, changes: Mapping[str, Any]) -> Suite:
    """The suite with command-line choices applied and checked again.

    Of several systems, those with one of the datasets and pairs asked for are kept.
    """
    if suite.systems:
        measures = tuple(changes.get("measures", suite.measures))
        kept = _changed_systems(suite, changes)
        return kept.model_copy(update={"measures": measures})
    values = suite.model_dump()
    recipe = {k: v for k, v in changes.items() if k in Recipe.model_fields}
    values.update({k: v for k, v in changes.items() if k not in recipe})
    values["recipe"].update(recipe)
    try:
        return Suite(**values)
    except ValidationError as error:
        raise UserError(_explain(error, "the command line", "")) from None


def _changed_systems(suite: Suite, changes: Mapping[str, Any]) -> Suite:
    kept = []
    narrowing = {k: set(changes[k]) for k in ("datasets", "pairs") if k in changes}
    there: dict[str, set[str]] = {k: set() for k in narrowing}
    for part in suite.parts:
        left = {k: set(getattr(part, k)) & wanted for k, wanted in narrowing.items()}
        for key in narrowing:
            there[key] |= set(getattr(part, key))
        if all(left.values()):
            rest = {k: v for k, v in changes.items() if k not in narrowing}
            named = {k: [n for n in getattr(part, k) if n in left[k]] for k in left}
            kept.append(changed(part, {**rest, **named}))
    for key, wanted in narrowing.items():
        for name in sorted(wanted - there[key]):
            where = f"the systems of suite {suite.name!r}"
            raise unknown(key.removesuffix("s"), name, there[key], where)
    if not kept:
        raise UserError(
            f"no system of suite {suite.name!r} has both what -d and what -p name"
        )
    return only_systems(suite, kept)


def only_systems(suite: Suite, parts: Sequence[Suite]) -> Suite:
    """A suite of these systems of it."""
    keys = set(System.model_fields)
    systems = [System(**part.model_dump(include=keys)) for part in parts]
    return suite.model_copy(update={"systems": tuple(systems)})


def _explain(error: ValidationError, where: str, text: str) -> str:
    """The first problem of a validation, for a reader who has the file open."""
    problems = error.errors()
    misspelt = [p for p in problems if p["type"] == "extra_forbidden"]
    problem = (misspelt or problems)[0]  # a misspelt key explains a missing one
    keys = [str(part) for part in problem["loc"]]
    key = keys[-1] if keys else ""
    line = _line_of(next((k for k in reversed(keys) if not k.isdigit()), ""), text)
    if keys[:1] == ["systems"] and len(keys) > 2:  # counted as an author would
        keys = [f"systems (number {int(keys[1]) + 1})", *keys[2:]]
    place = f"{where}, line {line}" if line else where
    if problem["type"] == "extra_forbidden":
        kind: type[Strict] = System if keys[0].startswith("systems") else Suite
        tables: dict[str, type[Strict]] = {"recipe": Recipe, "fine_tuning": FineTuning}
        fields = next((tables[k] for k in keys[:-1] if k in tables), kind).model_fields
        near = difflib.get_close_matches(key, fields, n=2, cutoff=0.5)
        options = " or ".join(map(repr, near)) or ", ".join(sorted(fields))
        hint = f"did you mean {options}?" if near else f"known: {options}"
        return f"{place}: unknown key {'.'.join(keys)!r}; {hint}"
    if problem["type"] == "missing":
        return f"{place}: key {'.'.join(keys)!r} is missing"
    if not keys:
        return f"{place}: {problem['msg'].removeprefix('Value error, ')}"
    given, why = problem["input"], problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "tuple_type":
        return f"{place}: {'.'.join(keys)} = {given!r}: write a list, [{given!r}]"
    return f"{place}: {'.'.join(keys)} = {given!r}: {why}"


def _line_of(key: str, text: str) -> int | None:
    for number, line in enumerate(text.splitlines(), start=1):
        if key and re.match(rf"\s*\[?\s*{re.escape(key)}\s*[=\]]", line):
            return number
    return None
