"""How a plugin gets into a process, and what is known of it."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal

import pluggy

from kdbench.admission import Refused


@dataclass
class Plugin:
    """One plugin's status record."""

    name: str
    distribution: str
    version: str
    path: str
    status: Literal["ok", "broken", "disabled", "shadowed"] = "ok"
    error: str | None = None
    traceback: str | None = None
    hooks: list[str] = field(default_factory=list)
    offers: dict[str, list[str]] = field(default_factory=dict)

    @property
    def source(self) -> dict[str, str]:
        """What records and cards say of where a strategy is from."""
        return {k: getattr(self, k) for k in ("name", "distribution", "version")}

    def broke(self, error: BaseException) -> None:
        self.status = "broken"
        what = str(error)
        if not isinstance(error, Refused | pluggy.PluginValidationError):
            what = f"{type(error).__name__}: {error}"
        self.error = what.strip() or type(error).__name__
        self.traceback = "".join(traceback.format_exception(error))
        self.offers = {}


def limit(only: Iterable[str] | None) -> set[str] | None:
    if only is not None:
        return set(only)
    text = os.environ.get("KDBENCH_PLUGINS")
    if text is None:
        return None
    return {name.strip() for name in text.split(",") if name.strip()}


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
    spec.loader.exec_module(module)
    return module
