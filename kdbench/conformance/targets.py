"""What `kdbench check TARGET` is asked to look at: from a text to subjects of checks.

Everything is looked at in a host of its own, with our own parts, the toys, the plugins
of the target's distribution and those that it requires: whatever else is installed has
no say.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import Distribution, EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kdbench.admission import BY_PREFIX, KINDS, SINGULAR
from kdbench.api import Dataset, Pair, Strategy, UserError, hookimpl, unknown
from kdbench.conformance.toys import HOMES, Toy, Toys
from kdbench.conformance.trainings import subject_of
from kdbench.loading import Plugin, not_loaded
from kdbench.plugins import BUILTIN, Host, Offer
from kdbench.requirements import of_distribution

OURS = "kdbench"
"""The distribution of our own parts."""

TOYS = (*dict.fromkeys(toy.dataset for toy in HOMES), "toy-tokens")
"""Datasets on which a plugin's own pairs are tried."""

SMALL = 1_000_000
"""Parameters that a model may have to be trained in a check."""


@dataclass(frozen=True)
class PluginSubject:
    """A plugin on trial, as the host found it: of kind "plugin"."""

    host: Host
    plugin: Plugin


@dataclass(frozen=True)
class OfferSubject:
    """A dataset, measure ... on trial: `kind` is singular, as checks have it."""

    host: Host
    kind: str
    offer: Offer


@dataclass(frozen=True)
class Thing:
    """One thing to be looked at, and what its checks are given."""

    kind: str
    name: str
    subject: Any


@dataclass(frozen=True)
class Target:
    """What a text means: everything that is to be looked at, plugins first."""

    title: str
    things: tuple[Thing, ...]


def find(text: str, toy: Toy | None = None) -> Target:
    """What the text means: a file, folder, distribution, plugin, name or module.

    The first of these that there is; a name may be of several kinds. `toy` is where
    strategies are trained, instead of where they fit. Raises UserError for what there
    is not, with near matches.
    """
    points = list(entry_points(group="kdbench"))
    path = Path(text)
    if text.endswith(".py"):
        if not path.is_file():
            raise UserError(f"{text}: no such file")
        return _plugins(text, _host([], toy, files=[path]), toy)
    if os.sep in text or text in (os.curdir, os.pardir):
        return _plugins(text, _host(_of_folder(path), toy), toy)
    if (path / "pyproject.toml").is_file() and not _is_known(text, points):
        return _plugins(text, _host(_of_folder(path), toy), toy)
    asked = canonicalize_name(text)
    named = [p for p in points if p.dist and canonicalize_name(p.dist.name) == asked]
    named = named or [point for point in points if point.name == text]
    if not named and text not in (OURS, *BUILTIN):
        return _by_name(text, points, toy)
    wanted = {p.name for p in named} or ({text} & set(BUILTIN) or set(BUILTIN))
    return _plugins(text, _host(named, toy), toy, wanted)


def _is_known(text: str, points: Iterable[EntryPoint]) -> bool:
    """Whether a distribution or a plugin of this name is installed."""
    asked = canonicalize_name(text)
    names = {canonicalize_name(p.dist.name) for p in points if p.dist}
    return asked in names or text in {point.name for point in points}


def of_module(module: ModuleType) -> Target:
    """A plugin that is imported: that of its distribution, or this module alone."""
    points = _around(module.__name__, list(entry_points(group="kdbench")))
    if points:
        names = {point.name for point in points}
        return _plugins(module.__name__, _host(points), wanted=names)
    return _plugins(module.__name__, _host([], modules=[module]))


def of_class(kind: type[Strategy], toy: Toy | None = None) -> Thing:
    """A strategy, with whatever else its plugin offers, or alone."""
    host = _host(_around(kind.__module__, list(entry_points(group="kdbench"))), toy)
    name = getattr(kind, "name", None)
    if name not in host.names("strategies") or host.strategy(name) is not kind:
        alone = _Alone(kind)
        host = _host([], toy, modules=[alone])
        for plugin in host.plugins:
            if plugin.name == alone.__name__ and plugin.status == "broken":
                raise UserError(f"{kind.__name__} cannot be used: {plugin.error}")
    return _thing(host, "strategies", host.get("strategies", kind.name), toy)


class _Alone:
    """A plugin of one strategy."""

    def __init__(self, kind: type[Strategy]):
        self._kind = kind
        self.__name__ = kind.__name__

    @hookimpl
    def kdbench_strategies(self) -> list[type[Strategy]]:
        return [self._kind]


def _by_name(text: str, points: list[EntryPoint], toy: Toy | None) -> Target:
    """A strategy, dataset ... that any plugin offers; or else a module."""
    everyone = Host(only={point.name for point in points})
    prefix, colon, _ = text.partition(":")
    kinds = [
        kind
        for kind in KINDS
        if text in everyone.names(kind)
        or (kind in BY_PREFIX and colon and prefix in _prefixes(everyone, kind))
    ]
    offers = {kind: everyone.get(kind, text) for kind in kinds}
    if offers:
        origins = {offer.plugin.distribution for offer in offers.values()}
        near = [p for p in points if p.dist and p.dist.name in origins]
        host = _host(near, toy)
        things = [_thing(host, kind, host.get(kind, text), toy) for kind in kinds]
        said = " and ".join(f"{thing.kind} {text}" for thing in things)
        return Target(f"{said} ({', '.join(sorted(origins))})", tuple(things))
    if _is_module(text):
        around = _around(text, points) or [EntryPoint(text, text, "kdbench")]
        return _plugins(text, _host(around, toy), toy, {p.name for p in around})
    raise _unknown(text, points, everyone)


def _prefixes(host: Host, kind: str) -> list[str]:
    return [offer.thing.name for offer in host.sources(kind)]


def _is_module(text: str) -> bool:
    """Whether it can be a module of a package that is there; imports nothing."""
    package, *inner = text.split(".")
    if not all(part.isidentifier() for part in (package, *inner)):
        return False
    try:
        return find_spec(package) is not None
    except ValueError:  # __main__
        return False


def _unknown(text: str, points: Iterable[EntryPoint], host: Host) -> UserError:
    known = {name for kind in KINDS for name in host.names(kind)}
    known |= {point.name for point in points}
    known |= {point.dist.name for point in points if point.dist}
    known |= {str(path) for path in Path().glob("*.py")}
    return UserError(f"{unknown('target', text, known)}{not_loaded(host.plugins)}")


def _of_folder(folder: Path) -> list[EntryPoint]:
    """The plugins of a project that need not be installed; its code can be imported."""
    file = folder / "pyproject.toml"
    if not file.is_file():
        raise UserError(
            f"{file}: no such file; name a plugin's file, the folder of its project, "
            "or what is installed"
        )
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
    except ValueError as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    entries = project.get("entry-points", {}).get("kdbench", {})
    if not entries:
        raise UserError(
            f"{file} declares no plugin: add [project.entry-points.kdbench] with a "
            'line NAME = "MODULE"'
        )
    root = folder / "src" if (folder / "src").is_dir() else folder
    sys.path.insert(0, str(root.resolve()))
    return [EntryPoint(name, value, "kdbench") for name, value in entries.items()]


def _around(module: str, points: Iterable[EntryPoint]) -> list[EntryPoint]:
    """The plugins of the package that a module is in."""
    package = module.partition(".")[0]
    return [p for p in points if p.module.partition(".")[0] == package]


def _needed(points: Sequence[EntryPoint]) -> list[EntryPoint]:
    """These, and the plugins of distributions that theirs require."""
    everyone: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group="kdbench"):
        if point.dist:
            everyone.setdefault(canonicalize_name(point.dist.name), []).append(point)
    found, open_ = list(points), list(points)
    while open_:
        dist = open_.pop().dist
        for requirement in _required(dist) if dist else ():
            more = everyone.get(canonicalize_name(requirement.name), [])
            new = [point for point in more if point not in found]
            found += new
            open_ += new
    return found


def _required(distribution: Distribution) -> list[Requirement]:
    try:
        return of_distribution(distribution)
    except ValueError:  # what it says of this cannot be read: `declares-kdbench`
        return []


def _host(
    points: Sequence[EntryPoint],
    toy: Toy | None = None,
    files: Sequence[Path] = (),
    modules: Sequence[object] = (),
) -> Host:
    """Our own parts, the toys, and these; what offers the asked-for `toy`, too."""
    if toy is not None:
        points = [*points, *(p for p in _offering(toy) if p not in points)]
    needed = _needed(points)
    return Host(
        files=files,
        only={point.name for point in needed},
        found=needed,
        modules=[Toys(), *modules],
        lenient=True,
    )


def _offering(toy: Toy) -> list[EntryPoint]:
    """The plugins that offer a pair and a dataset that were asked for."""
    points = list(entry_points(group="kdbench"))
    everyone = Host(only={p.name for p in points}, modules=[Toys()])
    dataset = everyone.get("datasets", toy.dataset)
    if not dataset.thing.embedded:
        raise UserError(
            f"dataset {toy.dataset!r} needs files; checks train on datasets without, "
            f"such as {', '.join(TOYS)} or digits"
        )
    plugins = {dataset.plugin.name, everyone.get("pairs", toy.pair).plugin.name}
    return [point for point in points if point.name in plugins]


def _plugins(
    title: str, host: Host, toy: Toy | None = None, wanted: set[str] | None = None
) -> Target:
    """The plugins `wanted`, by default all that are neither ours nor the toys."""
    mine = [
        plugin
        for plugin in host.plugins
        if (plugin.name in wanted if wanted is not None else _is_foreign(plugin))
    ]
    things = [Thing("plugin", p.name, PluginSubject(host, p)) for p in mine]
    for plugin in mine:
        things += [
            _thing(host, kind, offer, toy) for kind, offer in _offers(host, plugin)
        ]
    packed = {p.distribution: p.version for p in mine if p.version != "-"}
    if packed:
        title = ", ".join(f"{name} {version}" for name, version in packed.items())
    return Target(title, tuple(things))


def _is_foreign(plugin: Plugin) -> bool:
    return plugin.distribution != OURS and plugin.name != Toys().__name__


def _offers(host: Host, plugin: Plugin) -> Iterator[tuple[str, Offer]]:
    """What it offers by a name of its own; `own-names` tells of the others."""
    for kind in KINDS:
        for name in plugin.offers.get(kind, ()):
            try:
                yield kind, host.get(kind, name)
            except UserError:  # a Source, or a name that others have, too
                continue


def _thing(host: Host, kind: str, offer: Offer, toy: Toy | None) -> Thing:
    name = offer.thing.name
    if kind != "strategies":
        singular = SINGULAR[kind]
        return Thing(singular, name, OfferSubject(host, singular, offer))
    toys = HOMES if toy is None else (toy,)
    more = partial(_own_toys, host) if toy is None else tuple
    return Thing("strategy", name, subject_of(host, name, toys, more))


def _own_toys(host: Host) -> list[Toy]:
    """Pairs of the plugins' own, as far as they are small, on toys that they read."""
    found = []
    for offer in host.all("pairs"):
        if _is_foreign(offer.plugin):
            fitting = (d for d in TOYS if _fits(host, offer.thing, host.dataset(d)))
            dataset = next(fitting, None)
            if dataset:
                found.append(Toy(dataset, offer.thing.name, "the plugin's own"))
    return found


def _fits(host: Host, pair: Pair, dataset: Dataset) -> bool:
    """Whether all models of the pair can be built for these inputs, and are small."""
    try:
        for name in (*pair.teachers, *pair.students, *pair.assistants):
            with torch.device("meta"):
                network = dataset.build(host.model(name))
            if sum(p.numel() for p in network.parameters()) > SMALL:
                return False
    except Exception:  # noqa: BLE001 - a model says that it does not fit by raising
        return False
    return True
