"""Find, isolate, validate, attribute and list plugins.

Every plugin gets a status and none can stop another: each is imported and each of its
hooks called on its own, because in pluggy one raising implementation aborts a whole
hook call and a misspelt hook is silent.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from kdbench import __version__, hookspecs
from kdbench.admission import KINDS, SINGULAR, Refused, check_hook_names, checked
from kdbench.api import (
    Dataset,
    Model,
    Source,
    Strategy,
    UserError,
    unknown,
)
from kdbench.combining import combine
from kdbench.loading import Offer as Offer
from kdbench.loading import (
    Plugin,
    at_hand,
    clash,
    import_file,
    import_point,
    importer,
    limit,
    name_of,
    not_loaded,
    noting,
    plugin_of,
)
from kdbench.provenance import code_of as code_of
from kdbench.untouched import untouched

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


class Host:
    """All plugins of one process. Tests build their own."""

    def __init__(
        self,
        files: Sequence[Path] = (),
        only: Iterable[str] | None = None,
        found: Iterable[EntryPoint] | None = None,
        modules: Sequence[object] = (),
        lenient: bool = False,
    ) -> None:
        """Load built-ins, entry points (`found`, default all installed) and `files`.

        `modules` are plugins at hand: modules, or objects that have hooks for methods.
        `only` limits which entry points load (default: KDBENCH_PLUGINS, if set); none
        do where it is empty. Raises UserError for an unknown name in `only`, and for a
        file that cannot be used; where `lenient`, that one is broken like any other.
        """
        self.files = tuple({file.resolve(): file for file in files}.values())
        self.only = limit(only)
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
            name = name_of(module)
            self._add(Plugin(name, "(module)", "-", name), at_hand(module))
        for file in self.files:
            self._add_file(file, lenient)
        points = entry_points(group="kdbench") if found is None else found
        why = "not in KDBENCH_PLUGINS" if only is None else "left out by --no-plugins"
        self._add_entry_points(list(points), why)

    # --- loading ----------------------------------------------------------------------

    def _add_file(self, file: Path, lenient: bool) -> None:
        if not file.is_file():
            raise UserError(f"--plugin {file}: no such file")
        plugin = Plugin(file.stem, "(file)", "-", str(file))
        error = self._add(plugin, lambda: import_file(file))
        if error is not None and not lenient:
            raise UserError(
                f"--plugin {file} cannot be used: {plugin.error}\n"
                "  mend the file, or see where it fails with --debug"
            ) from error

    def _add_entry_points(self, points: list[EntryPoint], left_out: str) -> None:
        names = {point.name for point in points}
        for name in sorted((self.only or set()) - names):
            raise unknown("plugin", name, names, "KDBENCH_PLUGINS")
        for point in sorted(points, key=lambda p: (p.name, p.value)):
            plugin = plugin_of(point)
            earlier = next((p for p in self.plugins if p.name == point.name), None)
            if self.only is not None and point.name not in self.only:
                plugin.status, plugin.error = "disabled", left_out
                self.plugins.append(plugin)
            elif earlier is not None:
                plugin.status = "shadowed"
                plugin.error = f"{earlier.distribution} has a plugin of this name too"
                self.plugins.append(plugin)
            else:
                self._add(plugin, partial(import_point, point))

    def _add(self, plugin: Plugin, load: Callable[[], Any]) -> BaseException | None:
        """Take in a plugin; the error where it is broken.

        What it prints goes to stderr, so that it spoils no JSON.
        """
        self.plugins.append(plugin)
        taken = self._manager.has_plugin(plugin.name)
        try:
            if taken:
                raise Refused(f"another plugin is called {plugin.name!r}; rename one")
            with redirect_stdout(sys.stderr), untouched(plugin.meddled):
                offers = self._loaded(plugin, load())
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
            if not taken and self._manager.has_plugin(plugin.name):
                self._manager.unregister(name=plugin.name)
            plugin.broke(error)
            return error
        for kind, things in offers.items():
            for thing in things:
                is_source = isinstance(thing, Source)
                there = self._sources if is_source else self._offers
                there[kind].setdefault(thing.name, []).append(Offer(thing, plugin))
        return None

    def _loaded(self, plugin: Plugin, module: object) -> dict[str, list[Any]]:
        """What the plugin offers; raises what is wrong with it."""
        file = inspect.getattr_static(module, "__file__", None)
        plugin.path = file if isinstance(file, str) else plugin.path
        known_as = self._manager.get_name(module)
        if known_as is not None:
            raise Refused(f"it is the plugin {known_as!r} once more; drop one of them")
        check_hook_names(module, self._manager)
        with noting(plugin):
            self._manager.register(module, plugin.name)
        offers = self._collect(plugin, module)
        for kind, things in offers.items():
            for thing in things:
                self._check_own(kind, thing.name)
            plugin.offers[kind] = sorted(thing.name for thing in things)
        return offers

    def _check_own(self, kind: str, name: str) -> None:
        """Refuse a name of kdbench's own: no plugin may take it from everyone."""
        known = self._offers[kind].get(name, []) + self._sources[kind].get(name, [])
        if any(offer.plugin.name in BUILTIN for offer in known):
            raise Refused(
                f"{SINGULAR[kind]} {name!r} is kdbench's own; give yours another name"
            )

    def _collect(self, plugin: Plugin, module: object) -> dict[str, list[Any]]:
        """Call this plugin's record hooks, each on its own."""
        offers: dict[str, list[Any]] = {}
        for caller in self._manager.get_hookcallers(module) or ():
            if not caller.has_spec():  # optional, and of another version
                continue
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

    def clashes(self) -> list[str]:
        """What two plugins offer under one name, a sentence each."""
        return [
            clash(kind, name, offers)
            for there in (self._offers, self._sources)
            for kind, known in there.items()
            for name, offers in sorted(known.items())
            if len(offers) > 1
        ]

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
            raise UserError(f"{error}{not_loaded(self.plugins)}")
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
            except (Exception, SystemExit) as error:
                what = f"{type(error).__name__}: {error}"
                raise UserError(
                    f"{SINGULAR[kind]} {name!r}: plugin {source.plugin.name} could "
                    f"not find it ({what})"
                ) from error
            self._found[kind, name] = Offer(thing, source.plugin)
        return self._found[kind, name]

    def _only(self, kind: str, name: str, offers: Sequence[Offer]) -> Offer:
        if len(offers) > 1:
            raise UserError(
                f"{clash(kind, name, offers)};\n"
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
        from kdbench.settings import kept  # needs torch, as nothing else here does

        failures = []
        for implementation in getattr(self._manager.hook, event).get_hookimpls():
            arguments = {k: values[k] for k in implementation.argnames}
            try:
                with kept():
                    implementation.function(**arguments)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - stops no run
                if implementation.plugin_name not in self._reported:
                    self._reported.add(implementation.plugin_name)
                    what = f"{type(error).__name__}: {error}"
                    failures.append(
                        f"plugin {implementation.plugin_name}: {event} raised {what}"
                    )
        return failures
