"""`kdbench check`: whether a plugin keeps what it promises.

Nothing heavy is imported before the command runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kdbench.plugins_cli import DEBUG

if TYPE_CHECKING:
    from kdbench.conformance.checks import Check
    from kdbench.conformance.toys import Toy


def check(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="A plugin's file, its project's folder, a distribution, a plugin, a "
            "module, or the name of a strategy, dataset, pair ...",
            show_default=False,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="CHECK", help="Only these checks."),
    ] = None,
    pair: Annotated[
        str | None,
        typer.Option("--pair", "-p", help="Train strategies on this pair."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", "-d", help="And on this dataset, with no files."),
    ] = None,
    as_list: Annotated[
        bool, typer.Option("--list", help="Say what each check asks for, and why.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: DEBUG = False,  # noqa: ARG001 - main() looks at it
) -> None:
    """Check a plugin: what fails, why that matters, and how to mend it.

    Strategies are trained on toy data, in seconds. Exit code 1 if a check failed.
    """
    import json
    import sys
    from contextlib import redirect_stdout

    from rich.console import Console

    from kdbench.api import UserError
    from kdbench.conformance import telling
    from kdbench.report.terminal import wide_console

    if as_list:
        _list(only, as_json)
        return
    if target is None:
        raise UserError(
            "name what to check: a file, a distribution, a plugin or a strategy "
            "('kdbench check --list' says what is asked for)"
        )
    toy = _toy(pair, dataset)
    from kdbench.conformance.examination import examine
    from kdbench.conformance.targets import find

    with redirect_stdout(sys.stderr):  # a plugin may print; the answer stays clean
        found = find(target, toy)
        with telling.progress(Console(stderr=True)) as tell:
            examination = examine(found, only or (), tell)
    if as_json:
        typer.echo(json.dumps(telling.as_data(examination), indent=1))
    else:
        telling.print_examination(examination, wide_console())
    raise typer.Exit(1 if examination.failed else 0)


def _toy(pair: str | None, dataset: str | None) -> Toy | None:
    """Where strategies are to be trained, if that was said."""
    from kdbench.api import UserError
    from kdbench.conformance.toys import Toy

    if pair is None and dataset is None:
        return None
    if pair is None or dataset is None:
        raise UserError("give --pair and --dataset together: where to train")
    return Toy(dataset, pair)


def _list(only: list[str] | None, as_json: bool) -> None:
    import json

    from kdbench.conformance import telling
    from kdbench.report.terminal import wide_console

    checks = _everything(only or [])
    if as_json:
        typer.echo(json.dumps(telling.checks_as_data(checks), indent=1))
    else:
        telling.print_checks(checks, wide_console())


def _everything(only: list[str]) -> list[Check]:
    """All checks of all kinds, or those named."""
    from kdbench.admission import SINGULAR
    from kdbench.api import unknown
    from kdbench.conformance.checks import checks_of

    kinds = ("strategy", "plugin", *(k for k in SINGULAR.values() if k != "strategy"))
    checks = [check for kind in kinds for check in checks_of(kind)]
    for name in only:
        if name not in {check.name for check in checks}:
            raise unknown("check", name, (check.name for check in checks))
    return [check for check in checks if not only or check.name in only]
