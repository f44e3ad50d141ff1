"""Which plugins a command loads, by its options; and `kdbench plugins`.

Nothing heavy is imported before a command runs.

A command that loads plugins is registered with `loads_plugins(app)` instead of
`app.command()`. It then has --plugin, --no-plugins, --strict and --debug, in a section
of their own, without naming them among its parameters, and takes its plugins from
`host_of_command()`:

    @loads_plugins(app)
    def show(name: str) -> None:
        host = host_of_command()
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from kdbench.loading import Plugin
    from kdbench.plugins import Host

Command = TypeVar("Command", bound=Callable[..., None])

SECTION = "Plugins"

DEBUG = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]
"""Of commands that load no plugins; `main()` looks at it."""


@dataclass(frozen=True)
class Choice:
    """What the shared options of a command say."""

    files: tuple[Path, ...] = ()
    only: tuple[str, ...] | None = None
    """Names of the entry points to load; None leaves it to KDBENCH_PLUGINS."""
    strict: bool = False


_choice: ContextVar[Choice] = ContextVar("choice")


def _shared(
    plugin: Annotated[
        list[Path] | None,
        typer.Option(
            "--plugin",
            metavar="FILE",
            help="Load an unpackaged plugin; may be given several times.",
            rich_help_panel=SECTION,
        ),
    ] = None,
    no_plugins: Annotated[
        bool,
        typer.Option(
            "--no-plugins",
            help="Load none of the installed plugins, only kdbench's own parts and "
            "--plugin files. KDBENCH_PLUGINS=NAME,NAME loads some of them.",
            rich_help_panel=SECTION,
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            envvar="KDBENCH_STRICT",
            show_envvar=True,
            help="Refuse to start where a plugin is broken or shadowed, or uses what "
            "is deprecated.",
            rich_help_panel=SECTION,
        ),
    ] = False,
    debug: Annotated[  # noqa: ARG001 - main() looks at it
        bool,
        typer.Option(
            "--debug", help="Show tracebacks of errors.", rich_help_panel=SECTION
        ),
    ] = False,
) -> Choice:
    """The options that all commands that load plugins share."""
    only = () if no_plugins else None
    return Choice(tuple(plugin or ()), only, strict)


class _InSections(TyperCommand):
    """A command whose help has a section for each panel of options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                is_argument = parameter.param_type_name == "argument"
                usual = "Arguments" if is_argument else "Options"
                name = getattr(parameter, "rich_help_panel", None) or usual
                sections.setdefault(name, []).append(record)
        for name, records in sections.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)


def loads_plugins(
    app: typer.Typer, name: str | None = None
) -> Callable[[Command], Command]:
    """Register a command that loads plugins, with the options that choose them."""

    def register(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        shared = inspect.signature(_shared, eval_str=True)

        @wraps(command)
        def with_options(**values: Any) -> None:
            given = {key: values.pop(key) for key in shared.parameters}
            before = _choice.set(_shared(**given))
            try:
                command(**values)
            finally:
                _choice.reset(before)

        parameters = [*own.parameters.values(), *shared.parameters.values()]
        with_options.__signature__ = own.replace(  # type: ignore[attr-defined]
            parameters=parameters
        )
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        app.command(name, cls=_InSections)(with_options)
        return command

    return register


def host_of_command() -> Host:
    """The plugins that the running command's options ask for.

    Raises UserError for a file that cannot be used, and under --strict for whatever is
    wrong with any plugin.
    """
    host = _loaded()
    if _choice.get().strict:
        _refuse(faults(host))
    return host


def _loaded(*, lenient: bool = False) -> Host:
    import warnings

    from kdbench.api import KdbenchDeprecationWarning
    from kdbench.plugins import Host

    choice = _choice.get()
    with warnings.catch_warnings():
        if choice.strict:  # a plugin that imports what is deprecated breaks there
            warnings.simplefilter("error", KdbenchDeprecationWarning)
        return Host(files=choice.files, only=choice.only, lenient=lenient)


def faults(host: Host) -> list[str]:
    """What --strict refuses, a sentence each."""
    found = [
        f"plugin {plugin.name!r} of {plugin.distribution} is {plugin.status}: "
        f"{plugin.error}"
        for plugin in host.plugins
        if plugin.status in ("broken", "shadowed")
    ]
    found += [
        f"plugin {plugin.name!r} of {plugin.distribution}: {note}"
        for plugin in host.plugins
        for note in plugin.notes
    ]
    return found + host.clashes()


def _refuse(found: Sequence[str]) -> None:
    from kdbench.api import UserError

    if found:
        lines = "".join(f"\n  {sentence}" for sentence in found)
        raise UserError(f"--strict accepts no fault of any plugin:{lines}")


def plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    named: Annotated[
        str | None,
        typer.Option(
            "--traceback", metavar="NAME", help="Show where a broken plugin fails."
        ),
    ] = None,
) -> None:
    """Show every plugin: its status, version, hooks, what it offers or why not.

    Exit 2 under --strict if anything is wrong with any of them.
    """
    host = _loaded(lenient=True)
    if named is not None:
        typer.echo(_traceback(host.plugins, named))
    elif as_json:
        import dataclasses
        import json

        rows = [dataclasses.asdict(plugin) for plugin in host.plugins]
        typer.echo(json.dumps(rows, indent=1))
    else:
        _print(host.plugins)
    if _choice.get().strict:
        _refuse(faults(host))


def _traceback(plugins: Sequence[Plugin], name: str) -> str:
    from kdbench.api import unknown

    mine = [plugin for plugin in plugins if plugin.name == name]
    if not mine:
        raise unknown("plugin", name, {plugin.name for plugin in plugins})
    for plugin in mine:
        if plugin.traceback:
            return plugin.traceback.rstrip()
    said = "; ".join(f"{p.status} ({p.error})" if p.error else p.status for p in mine)
    return f"plugin {name!r} is not broken: {said}"


def _print(plugins: Sequence[Plugin]) -> None:
    from rich.table import Table
    from rich.text import Text

    from kdbench.report.terminal import wide_console

    table = Table(box=None, header_style="bold", pad_edge=False)
    columns = ("plugin", "status", "distribution", "version")
    for column in (*columns, "hooks and what they offer, or why not"):
        table.add_column(column, overflow="fold", no_wrap=column in columns)
    for plugin in plugins:
        cells = [getattr(plugin, column) for column in ("name", *columns[1:])]
        hooks = [_hook(plugin, hook) for hook in plugin.hooks]
        says = [plugin.error] if plugin.error else hooks
        lines = [*says, *(f"deprecated: {note}" for note in plugin.notes)]
        table.add_row(*(Text(cell) for cell in (*cells, "\n".join(lines))))
    wide_console().print(table)


def _hook(plugin: Plugin, hook: str) -> str:
    """Such as "strategies: kd, dkd"; of an event its name alone."""
    kind = hook.removeprefix("kdbench_")
    if kind not in plugin.offers:
        return kind
    return f"{kind}: {', '.join(plugin.offers[kind]) or 'none'}"
