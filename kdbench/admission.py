"""What a plugin may hand in: the kinds of records, and why something is refused."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from typing import Any

import pluggy

from kdbench import hookspecs
from kdbench.api import (
    VIEWS,
    Compression,
    Dataset,
    Executor,
    Measure,
    Model,
    Pair,
    Renderer,
    Source,
    Strategy,
    SuiteFile,
    UserError,
)

KINDS: Mapping[str, type] = {
    "strategies": Strategy,
    "models": Model,
    "pairs": Pair,
    "datasets": Dataset,
    "suites": SuiteFile,
    "measures": Measure,
    "compressions": Compression,
    "executors": Executor,
    "renderers": Renderer,
}

BY_PREFIX = ("models", "datasets")
"""Kinds of which a plugin may hand in a Source, too."""

SINGULAR = {
    "strategies": "strategy",
    "models": "model",
    "pairs": "pair",
    "datasets": "dataset",
    "suites": "suite",
    "measures": "measure",
    "compressions": "compression",
    "executors": "executor",
    "renderers": "renderer",
}


class Refused(Exception):
    """Why a plugin is not accepted: what is wrong and how to mend it."""


def check_hook_names(module: object, manager: pluggy.PluginManager) -> None:
    """Refuse misspelt and unmarked hooks, which pluggy would silently ignore."""
    known = [name for name in dir(hookspecs) if name.startswith("kdbench_")]
    for name in dir(module):
        value = getattr(module, name, None)
        if not callable(value) or isinstance(value, type):
            continue
        marked = manager.parse_hookimpl_opts(module, name) is not None
        if marked and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {known}"
            raise Refused(f"{name!r} is not a hook of kdbench; {hint}")
        if name in known and not marked:
            raise Refused(f"{name!r} lacks the @kdbench.hookimpl decorator")


def checked(hook: str, kind: str, things: object) -> list[Any]:
    """The hook's result, or Refused with the reason."""
    wanted = KINDS[kind]
    if not isinstance(things, list | tuple):
        raise Refused(
            f"{hook}() must return a list of {wanted.__name__}, "
            f"not {type(things).__name__}"
        )
    for thing in things:
        if kind == "strategies":
            _check_strategy(hook, thing)
        elif not isinstance(thing, (wanted, Source) if kind in BY_PREFIX else wanted):
            raise Refused(
                f"{hook}() must return {wanted.__name__} records, not {thing!r}"
            )
        name = thing.name
        if not isinstance(name, str) or not name or set(name) & set("[], \t\n"):
            raise Refused(f"{hook}(): {name!r} is no name (no blanks or brackets)")
        if kind in ("strategies", "compressions") and "/" in name:
            raise Refused(f"{hook}(): {name!r} is no name (/ is for compressions)")
    return list(things)


def _check_strategy(hook: str, thing: object) -> None:
    if not (isinstance(thing, type) and issubclass(thing, Strategy)):
        raise Refused(
            f"{hook}() must return classes derived from kdbench.Strategy, not {thing!r}"
        )
    where = f"strategy class {thing.__name__}"
    if not isinstance(getattr(thing, "name", None), str):
        raise Refused(f'{where} has no name; add `name = "..."` to it')
    if "__dataclass_fields__" not in vars(thing):
        raise Refused(f"{where} must be a @dataclass(frozen=True, kw_only=True)")
    for name, default in thing.parameters().items():
        if default is dataclasses.MISSING:
            raise Refused(f"{where}: hyper-parameter {name!r} needs a plain default")
        if name in ("name", "family", "paper", "tasks"):
            raise Refused(
                f"{where}: write `{name} = {default!r}` without an annotation, or it "
                "becomes a hyper-parameter"
            )
        try:
            json.dumps(default, allow_nan=False)
        except (TypeError, ValueError):
            raise Refused(
                f"{where}: the default of {name!r} must be a finite number, text, "
                f"true/false, null or a list of these, not {default!r}"
            ) from None
    _check_presets(where, thing)
    _check_views(where, thing)
    if thing.loss is Strategy.loss and thing.train is Strategy.train:
        raise Refused(f"{where} must override loss() or train()")


def _check_presets(where: str, strategy: type[Strategy]) -> None:
    if set(strategy.name) & set("+@."):
        name = strategy.name
        raise Refused(f"{where}: {name!r} is no name (no + for sums, @ for presets, .)")
    for preset, pairs in strategy.presets.items():
        for pair, values in pairs.items():
            try:
                strategy.configured(values)
            except UserError as error:
                raise Refused(f"preset {preset!r} for {pair}: {error}") from error


def _check_views(where: str, strategy: type[Strategy]) -> None:
    for view in strategy.views:
        if view not in VIEWS:
            raise Refused(f"{where}: {view!r} is no view; there are {', '.join(VIEWS)}")
    for view in {*(strategy.student_views or ()), *(strategy.teacher_views or ())}:
        if view not in ("", *strategy.views):
            raise Refused(f"{where}: {view!r} is none of its views {strategy.views}")
