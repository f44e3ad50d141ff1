"""What a plugin may hand in: the kinds of records, and why something is refused."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
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
    """Refuse hooks that pluggy would silently ignore, or that give nothing when called.

    Attributes are looked up without running the plugin's code (properties, say).
    """
    known = [name for name in dir(hookspecs) if name.startswith("kdbench_")]
    for name in dir(module):
        value = inspect.getattr_static(module, name, None)
        function = getattr(value, "__func__", value)  # of a static or class method
        if not callable(function) or isinstance(function, type):
            continue
        marked = manager.parse_hookimpl_opts(module, name)
        if marked is None:
            if name in known:
                raise Refused(f"{name!r} lacks the @kdbench.hookimpl decorator")
            continue
        hook = marked.get("specname") or name
        if hook in known:
            _check_function(hook, function, marked)
        elif not marked.get("optionalhook"):
            near = difflib.get_close_matches(hook, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {known}"
            raise Refused(f"{hook!r} is not a hook of kdbench; {hint}")


def _check_function(
    hook: str, function: Callable[..., Any], marked: Mapping[str, Any]
) -> None:
    """Refuse what does not run when it is called, once and by itself."""
    if marked.get("wrapper") or marked.get("hookwrapper"):
        raise Refused(
            f"{hook}() is a hook wrapper; kdbench calls every hook by itself, so "
            "that none can change another's answer"
        )
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        what = "yields" if inspect.isgeneratorfunction(function) else "is async"
        raise Refused(f"{hook}() {what}, so calling it does nothing: use `return`")


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
    _check_twice(hook, [thing.name for thing in things])
    return list(things)


def _check_twice(hook: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise Refused(f"{hook}() hands in {name!r} {names.count(name)} times")


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
