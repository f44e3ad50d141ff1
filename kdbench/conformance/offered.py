"""Checks of a plugin as a whole, and of what everything that it offers says of itself.

Beside this: `offered_data`, `offered_models`, `offered_measures`, `offered_rest`.
"""

from __future__ import annotations

import difflib
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import kdbench
from kdbench import __version__, hookspecs
from kdbench.admission import KINDS as HANDED_IN
from kdbench.admission import SINGULAR
from kdbench.api import Measure
from kdbench.conformance.checks import Broken, DoesNotApply, check
from kdbench.conformance.targets import OfferSubject, PluginSubject
from kdbench.conformance.tried import everyone
from kdbench.loading import Plugin
from kdbench.plugins import BUILTIN
from kdbench.requirements import fits, of_distribution, same, wanted
from kdbench.tasks import KINDS

FRAME = re.compile(r'^  File "(.+?)", line (\d+)(?:, in (.+))?\n(?:    (.+)\n)?', re.M)
"""A frame of a traceback: file, line, function, and the line itself."""

FRAMES = 3
"""As many of the plugin's own frames are shown, the last ones."""


@check(
    "plugin",
    what="It is imported without an error, its hooks are hooks of kdbench marked with "
    "@hookimpl, and each returns a list of the records that it is for. Loading it "
    "leaves the process as it was.",
    why="A broken plugin is left out of every run, with all that it offers; a function "
    "whose name is no hook's is never called, which nobody is told; and a seed or a "
    "setting that is changed at import changes everybody's numbers.",
    fix="Mend what is named. `kdbench plugins --traceback NAME` shows all of it, and "
    "every hook with an example is in kdbench/hookspecs.py.",
)
def loads(subject: PluginSubject) -> None:
    plugin = subject.plugin
    if plugin.status in ("disabled", "shadowed"):
        raise DoesNotApply(f"it was not loaded: {plugin.error}")
    if plugin.status == "broken":
        parts = [plugin.error or "it is broken", *_advice(plugin), *_frames(plugin)]
        raise Broken("\n  ".join(parts))
    if plugin.meddled:
        changed = " and ".join(plugin.meddled)
        raise Broken(f"loading it changed {changed}; kdbench has put that back")
    lost = list(_lost(plugin))
    if lost:
        raise Broken("; ".join(lost))
    if not plugin.hooks:
        raise Broken("it has no hook, so that nothing of it is used")
    events = [h for h in plugin.hooks if h.removeprefix("kdbench_") not in HANDED_IN]
    if not (events or any(plugin.offers.values())):
        raise Broken("its hooks return empty lists, so that it offers nothing")


def _advice(plugin: Plugin) -> Iterator[str]:
    """How to mend an import that failed."""
    said = plugin.error or ""
    missing = re.search(r"No module named '([\w.]+)'", said)
    # the one who writes "requires" has said how to install it
    if missing and "pip install" not in said:
        name = missing[1].partition(".")[0]
        if name == _package(plugin):
            yield (
                f"the entry point names {plugin.path!r}, and there is no such module: "
                "see [project.entry-points.kdbench] in pyproject.toml, then install "
                "it anew: pip install -e ."
            )
        else:
            yield (
                f"install what has the module: pip install {name} (its distribution "
                "may have another name), and name it in the plugin's `dependencies`"
            )
    absent = re.search(r"cannot import name '(\w+)' from '(kdbench[\w.]*)'", said)
    if absent:
        module = sys.modules.get(absent[2], kdbench)
        known = getattr(module, "__all__", dir(module))
        near = difflib.get_close_matches(absent[1], known, n=1)
        here = f"this is kdbench {__version__}"
        yield f"did you mean {near[0]!r}?" if near else f"{here}, which has none"


def _frames(plugin: Plugin) -> Iterator[str]:
    """The last frames of the traceback that are in the plugin's own files."""
    own = [
        (f"{file}:{line}" + (f", in {place}" if place else ""), code)
        for file, line, place, code in FRAME.findall(plugin.traceback or "")
        if _is_own(plugin, file)
    ]
    for place, code in own[-FRAMES:]:
        yield f"{place}: {code}" if code else place


def _is_own(plugin: Plugin, file: str) -> bool:
    """Whether the file is of the plugin: its own, or one of its package."""
    path = Path(file)
    if file == plugin.path or not path.is_file():
        return file == plugin.path
    if plugin.path.endswith("__init__.py"):
        return path.is_relative_to(Path(plugin.path).parent)
    if _package(plugin) in (*path.parts, path.stem):
        return True
    ours = Path(kdbench.__file__).parent
    foreign = [ours, *(Path(sysconfig.get_path(k)) for k in ("stdlib", "purelib"))]
    return not any(path.is_relative_to(place) for place in foreign)


def _package(plugin: Plugin) -> str:
    """The package or module that the plugin is; "" of a file."""
    if plugin.path.endswith(".py"):
        return Path(plugin.path).stem if plugin.distribution == "(file)" else ""
    return plugin.path.partition(":")[0].partition(".")[0]


def _lost(plugin: Plugin) -> Iterator[str]:
    """Functions that look like hooks, are none, and so are never called."""
    known = [name for name in vars(hookspecs) if name.startswith("kdbench_")]
    module = next(
        (
            m
            for m in list(sys.modules.values())
            if plugin.path.endswith(".py") and _file_of(m) == plugin.path
        ),
        None,
    )
    if module is None:
        return
    for name, value in vars(module).items():
        here = callable(value) and getattr(value, "__module__", "") == module.__name__
        if here and not isinstance(value, type) and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            if near or name.startswith("kdbench_"):
                hint = f"did you mean {near[0]!r}?" if near else "there is none so"
                yield f"{name}() is no hook of kdbench and is never called; {hint}"


def _file_of(module: Any) -> str | None:
    file = vars(module).get("__file__") if hasattr(module, "__dict__") else None
    return file if isinstance(file, str) else None


@check(
    "plugin",
    what="No other installed plugin has its name, or offers a thing of the same kind "
    "and name as it does.",
    why="Of two things of one name nobody can say which a suite means: kdbench refuses "
    "every run that names it, until one of the two is uninstalled.",
    fix="Rename yours; a prefix of your own (`mylab_kd`) keeps names apart.",
)
def own_names(subject: PluginSubject) -> None:
    plugin = subject.plugin
    if plugin.status == "shadowed":
        raise Broken(f"plugin {plugin.name!r}: {plugin.error}")
    if plugin.status != "ok":
        raise DoesNotApply("it did not load, see `loads`")
    twice = []
    for kind, names in plugin.offers.items():
        for name in sorted(set(names)):
            twice += [
                f"{SINGULAR[kind]} {name!r}: {other.distribution} {other.version} "
                f"({other.path}) offers one of that name, and so does "
                f"{plugin.distribution} {plugin.version} ({plugin.path})"
                for other in _others(subject)
                if name in other.offers.get(kind, ())
            ]
    if twice:
        raise Broken("; ".join(twice))


def _others(subject: PluginSubject) -> list[Plugin]:
    """All plugins but this one: those beside it, and all that are installed."""
    mine = subject.plugin
    near = {p.name: p for p in subject.host.plugins if p is not mine}
    far = {p.name: p for p in everyone().plugins if p.name != mine.name}
    return [p for p in (far | near).values() if p.status == "ok"]


@check(
    "plugin",
    what="Its distribution requires kdbench, with the versions that it works with, and "
    "the kdbench that is running is one of them.",
    why="Otherwise pip installs it beside a kdbench that it was not written for, and "
    "its user meets an error of Python instead of a sentence.",
    fix='Write `dependencies = ["kdbench>=0.1,<2"]` under [project] in pyproject.toml, '
    "with the versions that you have tried, and install it anew.",
)
def declares_kdbench(subject: PluginSubject) -> None:
    plugin = subject.plugin
    if plugin.name in BUILTIN:
        raise DoesNotApply("it is a part of kdbench")
    try:
        found = distribution(plugin.distribution)
    except (PackageNotFoundError, ValueError):
        raise DoesNotApply("it is no installed distribution") from None
    asked = [r for r in of_distribution(found) if same(r.name, "kdbench")]
    name = f"{found.name} {found.version}"
    if not asked:
        raise Broken(f"{name} does not require kdbench")
    if not any(r.specifier for r in asked):
        raise Broken(f"{name} requires kdbench of any version")
    unfit = [wanted(r) for r in asked if not fits(r, __version__)]
    if unfit:
        raise Broken(f"{name} requires {', '.join(unfit)}, and this is {__version__}")


def described(subject: OfferSubject) -> None:
    thing = subject.offer.thing
    wrong = [
        f"its {key} is {getattr(thing, key)!r}"
        for key in ("summary", "source")
        if hasattr(thing, key) and not _is_text(getattr(thing, key))
    ]
    if isinstance(thing, Measure):
        wrong += _ill_described(thing)
    if wrong:
        raise Broken("; ".join(wrong))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _ill_described(measure: Measure) -> Iterator[str]:
    if not isinstance(measure.unit, str):
        yield f'its unit is {measure.unit!r} (write "" where there is none)'
    if measure.better not in ("higher", "lower", None):
        yield f"better is {measure.better!r}, and not 'higher', 'lower' or None"
    if measure.scope not in ("run", "model"):
        yield f"its scope is {measure.scope!r}, and not 'run' or 'model'"
    tasks: Sequence[str] = measure.tasks
    unknown = [task for task in tasks if task not in KINDS]
    if isinstance(tasks, str) or unknown or not tasks:
        yield f"its tasks are {tasks!r}; there are {', '.join(KINDS)}"


for _kind in ("dataset", "model", "measure", "compression", "executor", "renderer"):
    check(
        _kind,
        what="It says in a sentence what it is; a dataset names its source too, a "
        "measure its unit, the better way, its scope and its tasks.",
        why="`kdbench list` and reports print it, and by the better way tables are "
        "ranked: what is not said is guessed, or wrong.",
        fix='Write summary="..." (and source="...", unit="%", better="higher") where '
        "you make it.",
    )(described)
