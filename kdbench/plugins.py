"""Find, isolate, validate, attribute and list plugins.

Every plugin gets a status and none can stop another: each is imported and each of its
hooks called on its own, because in pluggy one raising implementation aborts a whole
hook call and a misspelt hook is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from kdbench import __version__, hookspecs
from kdbench.admission import KINDS, SINGULAR, check_hook_names, checked
from kdbench.api import (
    Compression,
    Dataset,
    Model,
    Source,
    Strategy,
    UserError,
    unknown,
)
from kdbench.combining import Combination, combine
from kdbench.loading import Plugin, at_hand, import_file, importer, limit
from kdbench.provenance import source_hash
from kdbench.records import digest

BUILTIN = (
    "kdbench.controls",
    "kdbench.data",
    "kdbench.models",
    "kdbench.teachers.imported",
    "kdbench.suites",
    "kdbench.measure",
    "kdbench.compressions",
    "kdbench.report",
    "kdbench.execute",
)
"""Our own parts, registered through the same hooks as anyone's."""


@dataclass(frozen=True)
class Offer:
    """A named thing (of the kind it was asked for), and the plugin that offers it."""

    thing: Any
    plugin: Plugin


class Host:
    """All plugins of one process. Tests build their own."""

    def __init__(
        self,
        files: Sequence[Path] = (),
        only: Iterable[str] | None = None,
        found: Iterable[EntryPoint] | None = None,
        modules: Sequence[object] = (),
    ) -> None:
        """Load built-ins, entry points (`found`, default all installed) and `files`.

        `modules` are plugins at hand: modules, or objects that have hooks for methods.
        `only` limits which entry points load (default: KDBENCH_PLUGINS, if set). Raises
        UserError for a file that cannot be imported and for an unknown name in `only`.
        """
        self.files = tuple(files)
        self.plugins: list[Plugin] = []
        self._manager = pluggy.PluginManager("kdbench")
        self._manager.add_hookspecs(hookspecs)
        self._offers: dict[str, dict[str, list[Offer]]] = {k: {} for k in KINDS}
        self._sources: dict[str, dict[str, list[Offer]]] = {k: {} for k in KINDS}
        self._found: dict[tuple[str, str], Offer] = {}
        self._reported: set[str] = set()
        for name in BUILTIN:
            self._add(Plugin(name, "kdbench", __version__, ""), importer(name))
        for module in modules:
            name = getattr(module, "__name__", type(module).__name__)
            self._add(Plugin(name, "(module)", "-", name), at_hand(module))
        for file in self.files:
            self._add_file(file)
        points = entry_points(group="kdbench") if found is None else found
        self._add_entry_points(list(points), limit(only))

    # --- loading ----------------------------------------------------------------------

    def _add_file(self, file: Path) -> None:
        if not file.is_file():
            raise UserError(f"--plugin {file}: no such file")
        plugin = Plugin(file.stem, "(file)", "-", str(file))
        self._add(plugin, lambda: import_file(file))
        if plugin.status == "broken":
            raise UserError(
                f"--plugin {file} cannot be used: {plugin.error}\n"
                "  mend the file, or see where it fails with --debug"
            )

    def _add_entry_points(
        self, points: list[EntryPoint], only: set[str] | None
    ) -> None:
        names = {point.name for point in points}
        for name in sorted((only or set()) - names):
            raise unknown("plugin", name, names, "KDBENCH_PLUGINS")
        for point in sorted(points, key=lambda p: (p.name, p.value)):
            distribution = point.dist.name if point.dist else "(unknown)"
            version = point.dist.version if point.dist else "-"
            plugin = Plugin(point.name, distribution, version, point.value)
            earlier = next((p for p in self.plugins if p.name == point.name), None)
            if only is not None and point.name not in only:
                plugin.status, plugin.error = "disabled", "not in KDBENCH_PLUGINS"
                self.plugins.append(plugin)
            elif earlier is not None:
                plugin.status = "shadowed"
                plugin.error = f"{earlier.distribution} has a plugin of this name too"
                self.plugins.append(plugin)
            else:
                self._add(plugin, point.load)

    def _add(self, plugin: Plugin, load: Callable[[], Any]) -> None:
        self.plugins.append(plugin)
        try:
            module = load()
            plugin.path = getattr(module, "__file__", None) or plugin.path
            check_hook_names(module, self._manager)
            self._manager.register(module, plugin.name)
            offers = self._collect(plugin, module)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
            if self._manager.has_plugin(plugin.name):
                self._manager.unregister(name=plugin.name)
            plugin.broke(error)
            return
        for kind, things in offers.items():
            plugin.offers[kind] = sorted(thing.name for thing in things)
            for thing in things:
                is_source = isinstance(thing, Source)
                there = self._sources if is_source else self._offers
                there[kind].setdefault(thing.name, []).append(Offer(thing, plugin))

    def _collect(self, plugin: Plugin, module: object) -> dict[str, list[Any]]:
        """Call this plugin's record hooks, each on its own."""
        offers: dict[str, list[Any]] = {}
        for caller in self._manager.get_hookcallers(module) or ():
            plugin.hooks.append(caller.name)
            kind = caller.name.removeprefix("kdbench_")
            if kind not in KINDS:
                continue
            for implementation in caller.get_hookimpls():
                if implementation.plugin is module:
                    things = implementation.function()
                    offers[kind] = checked(caller.name, kind, things)
        plugin.hooks.sort()
        return offers

    # --- looking up -------------------------------------------------------------------

    def names(self, kind: str) -> list[str]:
        """Every name offered of this kind, sorted."""
        return sorted(self._offers[kind])

    def all(self, kind: str) -> list[Offer]:
        """Every offer of this kind, by name; a name offered twice is an error."""
        return [self.get(kind, name) for name in self.names(kind)]

    def sources(self, kind: str) -> list[Offer]:
        """Every source of this kind, by its prefix."""
        there = self._sources[kind]
        return [self._only(kind, name, there[name]) for name in sorted(there)]

    def get(
        self, kind: str, name: str, where: str = "", also: Iterable[str] = ()
    ) -> Offer:
        """The one offer of this name, or what a source finds by it ("prefix:rest").

        Raises UserError when there is none (near matches, of those in `also` too, and
        broken plugins named) or when several plugins offer it (all of them named).
        """
        offers = self._offers[kind].get(name, [])
        if kind == "strategies" and "+" in name:
            return self._sum(name, where)
        prefix, colon, rest = name.partition(":")
        if not offers and colon and prefix in self._sources[kind]:
            return self._find(kind, prefix, rest)
        if not offers:
            prefixes = [f"{prefix}:..." for prefix in self._sources[kind]]
            known = [*self._offers[kind], *prefixes, *also]
            error = unknown(SINGULAR[kind], name, known, where)
            broken = [p for p in self.plugins if p.status == "broken"]
            if broken:
                reasons = "; ".join(f"{p.name} ({p.error})" for p in broken)
                error = UserError(f"{error}\n  broken plugins: {reasons}")
            raise error
        return self._only(kind, name, offers)

    def compressed(self, name: str, chain: str) -> Model:
        """The model of this name after "FIRST/SECOND" compressions; "" for none.

        Raises UserError where a compression cannot take it.
        """
        model = self.model(name)
        for compression in chain.split("/") if chain else ():
            model = self.get("compressions", compression).thing.model(model)
        return model

    def _sum(self, name: str, where: str) -> Offer:
        """A sum of strategies, by their names; combined once."""
        if ("strategies", name) not in self._found:
            parts = [self.get("strategies", part, where) for part in name.split("+")]
            plugins = list({id(p.plugin): p.plugin for p in parts}.values())
            source = Plugin(
                name="+".join(plugin.name for plugin in plugins),
                distribution="+".join(plugin.distribution for plugin in plugins),
                version="+".join(plugin.version for plugin in plugins),
                path="",
            )
            thing = combine([part.thing for part in parts])
            self._found["strategies", name] = Offer(thing, source)
        return self._found["strategies", name]

    def _find(self, kind: str, prefix: str, rest: str) -> Offer:
        """What a source has under this name; asked once."""
        name = f"{prefix}:{rest}"
        if (kind, name) not in self._found:
            source = self._only(kind, prefix, self._sources[kind][prefix])
            try:
                thing = source.thing.find(rest, self)
                right = isinstance(thing, KINDS[kind])
                if not right or getattr(thing, "name", "") != name:
                    wanted = f"a {KINDS[kind].__name__} of that name"
                    raise TypeError(f"find() must return {wanted}, not {thing!r}")
            except UserError:
                raise
            except Exception as error:
                what = f"{type(error).__name__}: {error}"
                raise UserError(
                    f"{SINGULAR[kind]} {name!r}: plugin {source.plugin.name} could "
                    f"not find it ({what})"
                ) from error
            self._found[kind, name] = Offer(thing, source.plugin)
        return self._found[kind, name]

    def _only(self, kind: str, name: str, offers: Sequence[Offer]) -> Offer:
        if len(offers) > 1:
            sources = " and ".join(
                f"{o.plugin.distribution} {o.plugin.version} ({o.plugin.path})"
                for o in offers
            )
            raise UserError(
                f"{SINGULAR[kind]} {name!r} is offered by {sources};\n"
                "  rename one, uninstall one, or choose plugins with KDBENCH_PLUGINS"
            )
        return offers[0]

    def strategy(self, name: str, where: str = "") -> type[Strategy]:
        thing: type[Strategy] = self.get("strategies", name, where).thing
        return thing

    def model(self, name: str, where: str = "") -> Model:
        thing: Model = self.get("models", name, where).thing
        return thing

    def dataset(self, name: str, where: str = "") -> Dataset:
        thing: Dataset = self.get("datasets", name, where).thing
        return thing

    def emit(self, event: str, **values: Any) -> list[str]:
        """Tell an event to every plugin; returns the failures not yet reported."""
        failures = []
        for implementation in getattr(self._manager.hook, event).get_hookimpls():
            arguments = {k: values[k] for k in implementation.argnames}
            try:
                implementation.function(**arguments)
            except Exception as error:  # noqa: BLE001 - a tracker must not stop a run
                if implementation.plugin_name not in self._reported:
                    self._reported.add(implementation.plugin_name)
                    what = f"{type(error).__name__}: {error}"
                    failures.append(
                        f"plugin {implementation.plugin_name}: {event} raised {what}"
                    )
        return failures


def code_of(thing: object) -> str:
    """Source hash of what defines a strategy, model, dataset or compression.

    A model made out of others, given to its builder, has their sources in it too.
    """
    version = ""
    if isinstance(thing, type) and issubclass(thing, Combination):
        return digest([code_of(kind) for kind in thing.kinds])
    if isinstance(thing, Model):
        version = thing.version
        thing = thing.build
    elif isinstance(thing, Dataset):
        version = thing.version
        thing = thing.load
    elif isinstance(thing, Compression):
        thing = thing.model
    made_of = [version] if version else []
    while hasattr(thing, "func"):  # functools.partial, or what is built like it
        given = (*getattr(thing, "args", ()), *getattr(thing, "keywords", {}).values())
        made_of += [code_of(model) for model in given if isinstance(model, Model)]
        if not isinstance(thing, partial):
            made_of.append(source_hash(type(thing).__module__))
        thing = thing.func
    own = source_hash(thing.__module__)
    return digest([own, *made_of]) if made_of else own
