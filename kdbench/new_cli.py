"""`kdbench new`: a plugin to start from.

Nothing heavy is imported before the command runs.
"""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kdbench.plugins_cli import DEBUG


class Kind(StrEnum):
    """What a new plugin can offer."""

    strategy = "strategy"
    dataset = "dataset"
    pair = "pair"
    measure = "measure"


def new(
    name: Annotated[
        str,
        typer.Argument(help="Such as my_kd: small letters, digits, single _ or -."),
    ],
    kind: Annotated[Kind, typer.Option(help="What it offers.")] = Kind.strategy,
    place: Annotated[
        Path, typer.Option("--in", metavar="DIR", help="Where its folder is to be.")
    ] = Path(),
    debug: DEBUG = False,  # noqa: ARG001 - main() looks at it
) -> None:
    """Write a plugin to start from: a module, its test, pyproject.toml and README."""
    from kdbench.scaffold.naming import names_of, refuse_taken
    from kdbench.scaffold.writing import (
        offered,
        refuse_target,
        rendered,
        run_command,
        write,
    )

    names = names_of(name)
    target = place / names.folder
    refuse_target(target)

    from kdbench.plugins import Host

    refuse_taken(names, offered(kind, names), Host())
    files = rendered(kind, names)
    write(files, target)
    typer.echo(f"{target}: a {kind} {names.module}")
    for path in files:
        typer.echo(f"  {path}")
    typer.echo("next:")
    for command in (
        f"cd {shlex.quote(str(target))}",
        'pip install -e ".[test]"',
        "python -m pytest",
        f"kdbench check {names.module}",
        run_command(kind, names),
    ):
        typer.echo(f"  {command}")
