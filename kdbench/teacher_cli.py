"""`kdbench teacher`: the teachers in the cache, and how they are passed on.

Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdbench.plugins_cli import DEBUG, host_of_command, loads_plugins

if TYPE_CHECKING:
    from kdbench.plugins import Host
    from kdbench.weights import Imported, Trained

app = typer.Typer(
    help="Teachers that are trained once: list them, pass them on, take in others.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

FROM = Annotated[
    Path | None,
    typer.Option("--from", metavar="DIR", help="A folder of results, not the cache."),
]
FORCE = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


@app.command("list")
def list_(
    source: FROM = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: DEBUG = False,  # noqa: ARG001 - main() looks at it
) -> None:
    """List the teachers in the cache, or in a folder of results."""
    from kdbench.teachers.exchange import entries
    from kdbench.teachers.store import store_folder

    known = entries(source)
    rows = [{**_facts(e.card), "where": str(e.path)} for e in known if e.card]
    if as_json:
        import json

        typer.echo(json.dumps(rows, indent=1))
    elif rows:
        _print(rows)
    else:
        typer.echo(
            f"no teacher in {source or store_folder()}; 'kdbench run' trains some"
        )
    for entry in known:
        if not entry.card:
            typer.echo(f"left out: {entry.damage}", err=True)


def _facts(card: Trained | Imported) -> dict[str, str]:
    from kdbench.weights import Imported, shown

    if isinstance(card, Imported):
        return {
            "id": f"imported:{card.name}",
            "dataset": card.dataset,
            "model": card.model,
            "seed": "-",
            "recipe": f"from {card.file}",
            "headline": f"{card.headline.title} {shown(card.headline, card.value)}",
            "sha256": card.weights_sha256[:12],
            "date": card.imported_at[:10],
        }
    record, run = card.record, card.record.run
    value = shown(record.headline, record.measures.get(record.headline.name))
    return {
        "id": run.id,
        "dataset": run.dataset,
        "model": run.students[0],
        "seed": str(run.seed),
        "recipe": run.recipe.sentence(),
        "headline": f"{record.headline.title} {value}",
        "sha256": card.weights_sha256[:12],
        "date": record.finished_at[:10],
    }


def _print(rows: list[dict[str, str]]) -> None:
    """A line of facts for each, then its recipe and its place, which are long."""
    from rich.table import Table
    from rich.text import Text

    from kdbench.report.terminal import wide_console

    below = ("recipe", "where")
    table = Table(box=None, header_style="bold", pad_edge=False)
    columns = [key for key in rows[0] if key not in below]
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[column]) for column in columns))
    console = wide_console()
    console.print(table)
    for row in rows:
        for text in (f"{row['id']}: {row['recipe']}", f"  {row['where']}"):
            console.print(text, markup=False, highlight=False, soft_wrap=True)


@app.command()
def export(
    teacher: Annotated[
        str,
        typer.Argument(
            help="An id or its beginning, MODEL, DATASET/MODEL, MODEL#SEED, or "
            "imported:NAME."
        ),
    ],
    file: Annotated[Path, typer.Argument(help="A new file, NAME.safetensors.")],
    source: FROM = None,
    force: FORCE = False,
    debug: DEBUG = False,  # noqa: ARG001
) -> None:
    """Write a teacher, with its record, into one file for other machines."""
    from kdbench.teachers import exchange
    from kdbench.teachers.store import store_folder

    where = str(source or store_folder())
    entry = exchange.find(exchange.entries(source), teacher, where)
    card = exchange.export(entry, file, force=force)
    facts = _facts(card)
    typer.echo(
        f"{file}: {facts['dataset']} {facts['model']}, {facts['headline']}, sha256 "
        f"{facts['sha256']}; 'kdbench teacher import {file.name}' takes it in"
    )


@loads_plugins(app, "import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="What `export` wrote, or a checkpoint (see --model).")
    ],
    model: Annotated[
        str | None, typer.Option(help="Architecture of a checkpoint from elsewhere.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="What it was trained on; it is measured on it.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Pairs name it imported:NAME from then on.")
    ] = None,
    map_file: Annotated[
        Path | None,
        typer.Option(
            "--map",
            metavar="TOML",
            help="Its keys to ours: [rename] old = new, [[replace]] from, to; drop.",
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Where in the file the state dict lies.")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(envvar="KDBENCH_DATA", help="Folder that holds the datasets."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    force: FORCE = False,
) -> None:
    """Take a teacher in: one of kdbench's, or a checkpoint from elsewhere."""
    from kdbench.api import UserError

    given = {"--model": model, "--dataset": dataset, "--name": name}
    missing = [option for option, value in given.items() if value is None]
    if len(missing) == len(given) and not (key or map_file):
        _take_in(file, host_of_command(), force)
        return
    if model is None or dataset is None or name is None:
        raise UserError(
            f"a checkpoint from elsewhere needs {' and '.join(missing)}, too"
        )
    from kdbench.execute import find_device
    from kdbench.teachers.imported import import_checkpoint

    card = import_checkpoint(
        file,
        host_of_command(),
        model=model,
        dataset=dataset,
        name=name,
        key=key,
        map_file=map_file,
        data_dir=data_dir,
        device=find_device(device),
        force=force,
    )
    _tell_imported(card)


def _tell_imported(card: Any) -> None:
    from kdbench.weights import shown

    typer.echo(
        f"imported:{card.name}: {card.model} reaches {card.headline.title} "
        f"{shown(card.headline, card.value)} on the {card.test_items:,} test items of "
        f"{card.dataset} here (sha256 {card.weights_sha256[:12]})"
    )
    typer.echo("compare it with what its authors state; a pair can name it as teacher")


def _take_in(file: Path, host: Host, force: bool) -> None:
    """One of kdbench's own: into the cache, and what it will be used for."""
    from kdbench.teachers import exchange
    from kdbench.weights import Imported

    card, path = exchange.import_file(file, force=force)
    facts = _facts(card)
    typer.echo(
        f"{facts['id']}: {facts['dataset']} {facts['model']}, {facts['headline']}, "
        f"sha256 {facts['sha256']}; now {path}"
    )
    if isinstance(card, Imported):
        typer.echo(f"a pair can name it as teacher: imported:{card.name}")
        return
    run = card.record.run
    unused = exchange.why_unused(run, host)
    if unused:
        typer.echo(
            f"warning: this kdbench will not take it by itself ({'; '.join(unused)});\n"
            f"  as a checkpoint it can be used: kdbench teacher import {file} --model "
            f"{run.students[0]} --dataset {run.dataset} --name NAME"
        )
        return
    suites = exchange.suites_using(run, host)
    named = f", such as the suite{'s' * (len(suites) > 1)} {', '.join(suites)}"
    typer.echo(
        f"used by every run with teacher {run.students[0]} #{run.seed} on "
        f"{run.dataset} by this recipe{named if suites else ''}:\n"
        f"  {run.recipe.sentence()}"
    )
