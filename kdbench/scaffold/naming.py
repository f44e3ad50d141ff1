"""What a new plugin may be called, and what its parts are called then."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import keyword
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdbench.admission import SINGULAR
from kdbench.api import UserError

if TYPE_CHECKING:
    from kdbench.plugins import Host

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Where a word begins in "HTTPLoss"."""
LONGEST = 32
"""Characters of a name: it is a column of every table."""
FILES = ("conftest", "setup", "tests")
"""Names of files and folders that pytest and pip read."""
IMPORTED = ("Batch", "Strategy", "Tensor")
"""Capitalised names that the module of a strategy uses besides its own."""


@dataclass(frozen=True)
class Names:
    """my-kd or my_kd: the folder as it was given, and what is made of it."""

    folder: str

    @property
    def distribution(self) -> str:
        """What pip calls it."""
        return self.folder.replace("_", "-")

    @property
    def module(self) -> str:
        """What Python calls it; the plugin's name, and of what it offers."""
        return self.folder.replace("-", "_")

    @property
    def capitalised(self) -> str:
        """What a class is called."""
        return "".join(word.capitalize() for word in self.module.split("_"))


def names_of(name: str) -> Names:
    """Raises UserError, with a suggestion, where the text is no name of a plugin."""
    names = Names(name)
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} is no name for a plugin: it is to be small letters and digits, "
            f"parted by single _ or -, with a letter first; {_suggestion(name)}"
        )
    if len(name) > LONGEST:
        raise UserError(
            f"{name!r} has {len(name)} characters, and stands in every table: choose a "
            f"name of {LONGEST} at most"
        )
    why = _never(names)
    if why:
        raise UserError(f"{name!r} cannot be a plugin's name: {why}; {_other(names)}")
    return names


def refuse_taken(names: Names, offered: tuple[str, ...], host: Host) -> None:
    """Raise UserError where something installed, or a plugin, has such a name.

    `offered` is what the new plugin will offer.
    """
    why = _installed(names) or _of_a_plugin((names.module, *offered), host)
    if why:
        raise UserError(f"{names.folder!r} is taken: {why}; {_other(names)}")


def _never(names: Names) -> str | None:
    """Why it cannot be the name of a module of its own, whatever is installed."""
    module = names.module
    if keyword.iskeyword(module):
        return "it is a word of Python's"
    if module in sys.stdlib_module_names:
        return f"Python has a module {module} of its own"
    if module in FILES:
        return f"{module}.py and tests/ mean something to pytest and pip"
    if names.capitalised in IMPORTED:
        return f"a class {names.capitalised} is part of every strategy's module"
    return None


def _installed(names: Names) -> str | None:
    try:
        there = importlib.metadata.distribution(names.distribution)
    except importlib.metadata.PackageNotFoundError:
        pass
    else:
        return (
            f"a distribution {there.name} {there.version} is installed, and this one "
            "would replace it"
        )
    found = importlib.util.find_spec(names.module)
    if found is None:
        return None
    where = found.origin or ", ".join(found.submodule_search_locations or ())
    return f"a module {names.module} can be imported already ({where})"


def _of_a_plugin(wanted: tuple[str, ...], host: Host) -> str | None:
    for plugin in host.plugins:
        if plugin.name == wanted[0]:
            return f"{plugin.distribution} has a plugin of this name"
        for kind, names in plugin.offers.items():
            both = sorted(set(names) & set(wanted))
            if both:
                return f"{plugin.distribution} has a {SINGULAR[kind]} {both[0]}"
    return None


def _other(names: Names) -> str:
    return f"choose another name, such as my_{names.module}"


def _suggestion(name: str) -> str:
    """The nearest that is a name, if any letter or digit is left."""
    apart = CAPITAL.sub("_", name).lower()
    near = re.sub(r"[^a-z0-9]+", "_", apart).strip("_")[:LONGEST].rstrip("_")
    if not near:
        return "such as my_kd"
    return f"try {near if near[0].isalpha() else f'kd_{near}'}"
