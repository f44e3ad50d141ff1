"""How a plugin gets into a process, and what is known of it."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pluggy

from kdbench import __version__
from kdbench.admission import SINGULAR, Refused
from kdbench.api import KdbenchDeprecationWarning
from kdbench.requirements import (
    fits,
    installed,
    of_distribution,
    pip_line,
    same,
    wanted,
)


@dataclass
class Plugin:
    """One plugin's status record; `notes` are what it uses that is deprecated."""

    name: str
    distribution: str
    version: str
    path: str
    status: Literal["ok", "broken", "disabled", "shadowed"] = "ok"
    error: str | None = None
    traceback: str | None = None
    hooks: list[str] = field(default_factory=list)
    offers: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    meddled: list[str] = field(default_factory=list)
    """Settings and random generators that loading it changed; they were put back."""

    @property
    def source(self) -> dict[str, str]:
        """What records and cards say of where a strategy is from."""
        return {k: getattr(self, k) for k in ("name", "distribution", "version")}

    def broke(self, error: BaseException) -> None:
        self.status = "broken"
        what = _said_by(error)
        if not isinstance(error, Refused | pluggy.PluginValidationError):
            what = f"{type(error).__name__}: {what}"
        self.error = what.strip() or type(error).__name__
        self.traceback = "".join(traceback.format_exception(error))
        self.offers = {}


@dataclass(frozen=True)
class Offer:
    """A named thing (of the kind it was asked for), and the plugin that offers it."""

    thing: Any
    plugin: Plugin


def clash(kind: str, name: str, offers: Sequence[Offer]) -> str:
    """Who offers this name, where several do."""
    sources = " and ".join(
        f"{o.plugin.distribution} {o.plugin.version} ({o.plugin.path})" for o in offers
    )
    return f"{SINGULAR[kind]} {name!r} is offered by {sources}"


def _said_by(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a plugin's error may raise anything, too
        return "(its message cannot be shown)"


def not_loaded(plugins: Sequence[Plugin]) -> str:
    """Lines on those that are broken or left out, for one who misses a name."""
    reasons: dict[str, list[str]] = {}
    for plugin in plugins:
        if plugin.status == "broken":
            reasons.setdefault("broken plugins", []).append(
                f"{plugin.name} ({plugin.error})"
            )
        elif plugin.status == "disabled":
            why = f"plugins {plugin.error}"
            reasons.setdefault(why, []).append(plugin.name)
    return "".join(f"\n  {why}: {'; '.join(named)}" for why, named in reasons.items())


def limit(only: Iterable[str] | None) -> frozenset[str] | None:
    """The entry points to load, None for all: as given, or by KDBENCH_PLUGINS."""
    if only is not None:
        return frozenset(only)
    text = os.environ.get("KDBENCH_PLUGINS")
    if text is None:
        return None
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def name_of(module: object) -> str:
    """A plugin object's name, without running any of its code."""
    name = inspect.getattr_static(module, "__name__", None)
    return name if isinstance(name, str) else type(module).__name__


def plugin_of(point: EntryPoint) -> Plugin:
    """The status record of an entry point, before it is loaded."""
    if point.dist is None:
        return Plugin(point.name, "(unknown)", "-", point.value)
    return Plugin(point.name, point.dist.name, point.dist.version, point.value)


def importer(name: str) -> Callable[[], ModuleType]:
    return lambda: import_module(name)


def at_hand(plugin: object) -> Callable[[], object]:
    return lambda: plugin


def import_file(file: Path) -> ModuleType:
    name = f"kdbench_file_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise Refused(f"{file.name} is not a Python file (its name must end in .py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)  # half a module helps nobody
        raise
    return module


def import_point(point: EntryPoint) -> Any:
    """What an entry point names; Refused where its distribution does not fit."""
    if point.dist is not None:
        _check_version(point.dist)
    try:
        return point.load()
    except ModuleNotFoundError as error:
        if point.dist is None:
            raise
        needs = of_distribution(point.dist)
        missing = [r for r in needs if installed(r.name) is None]
        if not missing:
            raise
        names = ", ".join(wanted(requirement) for requirement in missing)
        raise Refused(
            f"ModuleNotFoundError: {error}; {point.dist.name} requires {names}: "
            f"{pip_line(missing)}"
        ) from error


def _check_version(distribution: Distribution) -> None:
    """Refuse a plugin that was made for other versions of kdbench."""
    for requirement in of_distribution(distribution):
        if same(requirement.name, "kdbench") and not fits(requirement, __version__):
            raise Refused(
                f"needs {wanted(requirement)}, this is {__version__}: "
                f"{pip_line([requirement])}, or another version of {distribution.name}"
            )


@contextmanager
def noting(plugin: Plugin) -> Iterator[None]:
    """Keep what pluggy says of deprecated hooks and arguments in `plugin.notes`."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", KdbenchDeprecationWarning)
        yield
    for warning in said:
        if issubclass(warning.category, KdbenchDeprecationWarning):
            place = f"{Path(warning.filename).name}:{warning.lineno}"
            plugin.notes.append(f"{warning.message} ({place})")
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
