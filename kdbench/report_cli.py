"""`kdbench report` and `kdbench compare`: what records say.

Nothing heavy is imported before the command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdbench.plugins_cli import DEBUG, host_of_command

USUAL = Path("results/digits")


def report(
    folder: Annotated[
        list[Path] | None, typer.Argument(help="Folders of records, one or more.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Where to write (default: FOLDER/report).")
    ] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", "-f", help="Only these formats.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="published", help="Compare with published numbers."
        ),
    ] = None,
) -> None:
    """Write tables, plots and a page from records; trains nothing."""
    import gc

    from kdbench.catalogue import with_cards
    from kdbench.report import write
    from kdbench.report.against import against
    from kdbench.report.terminal import print_tables, wide_console
    from kdbench.store import load

    host, folders = host_of_command(), folder or [USUAL]
    results = with_cards(host, load(folders))
    gc.freeze()  # the records stay: the collector need not walk through them again
    if reference is not None:
        results = against(results, reference)
    names = formats or host.names("renderers")
    renderers = [host.get("renderers", name).thing for name in names]
    target = to or folders[0] / "report"
    files = write(results, target, renderers)
    print_tables(results, wide_console())
    page = next((f for f in files if f.suffix == ".html"), target)
    typer.echo(f"report: {page}")


def compare(
    a: Annotated[
        str, typer.Argument(help="A folder of results, or a strategy's label.")
    ],
    b: Annotated[str, typer.Argument(help="Another one, held against the first.")],
    source: Annotated[
        list[Path] | None,
        typer.Option(
            "--in", metavar="DIR", help="Where the strategies' runs are, one or more."
        ),
    ] = None,
    level: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of significance, after Holm.")
    ] = 0.05,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0.0, help="A mean loss up to this, in the table's units, is let pass."
        ),
    ] = 0.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of a table.")
    ] = False,
    debug: DEBUG = False,  # noqa: ARG001 - main() looks at it
) -> None:
    """Say what changed from A to B, with tests; exit 1 if something got worse.

    Worse: significantly so in some setting, or a run that failed. Of two folders the
    runs are matched by dataset, pair, recipe and label; of two strategies by setting.
    """
    import json

    from kdbench.report import comparing, comparison
    from kdbench.report.terminal import print_table, wide_console
    from kdbench.store import load

    if Path(a).is_dir() and Path(b).is_dir():
        sides = load([Path(a)]), load([Path(b)])
        found = comparing.compare_folders(
            *sides, names=(a, b), level=level, tolerance=tolerance
        )
    else:
        _check_labels(a, b, source)
        folders = source or [USUAL]
        found = comparing.compare_strategies(
            load(folders), a, b, level=level, tolerance=tolerance
        )
    if as_json:
        typer.echo(json.dumps(comparison.as_data(found), indent=1))
    else:
        console, rows = wide_console(), comparison.table(found)
        print_table(rows, console)
        console.print(rows.caption, style="dim", markup=False, highlight=False)
        changed = comparison.changes_table(found)
        if changed:
            print_table(changed, console)
        for sentence in comparison.sentences(found):
            console.print(sentence, markup=False, highlight=False)
    raise typer.Exit(1 if found.worse else 0)


def _check_labels(a: str, b: str, source: list[Path] | None) -> None:
    """Refuse a folder beside a strategy, and folders that are not there."""
    from kdbench.api import UserError

    for one, other in ((a, b), (b, a)):
        if Path(one).is_dir():
            raise UserError(
                f"{one} is a folder and {other} is none; give two folders of results, "
                "or two strategies' labels and their folder with --in"
            )
    if source is None and not USUAL.is_dir():
        raise UserError(
            f"neither {a} nor {b} is a folder of results; check the paths, or, to "
            "compare two strategies, name the folder of their runs with --in"
        )
