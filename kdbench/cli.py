"""The command line. Nothing heavy is imported before a command runs.

Exit codes: 0 all asked-for runs finished, 1 some failed (the report is written all the
same), 2 bad input (nothing started), 75 stopped at the time limit and 130 interrupted
(the same command resumes).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdbench import (
    check_cli,
    export_cli,
    new_cli,
    plugins_cli,
    profile_cli,
    report_cli,
    reproduce_cli,
    teacher_cli,
)
from kdbench.plugins_cli import host_of_command, loads_plugins

if TYPE_CHECKING:
    from kdbench.config import Suite
    from kdbench.plugins import Host

app = typer.Typer(
    name="kdbench",
    help="Which knowledge-distillation strategy gives the best student?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(teacher_cli.app, name="teacher")

DATA_DIR = Annotated[
    Path | None,
    typer.Option(envvar="KDBENCH_DATA", help="Folder that holds the datasets."),
]
OUT = Annotated[Path, typer.Option(help="Folder that holds the suites' results.")]
AS_JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
STRATEGY = Annotated[
    list[str] | None,
    typer.Option(
        "--strategy",
        "-s",
        metavar="NAME[key=value,...]",
        help="Only these strategies; several values of a key make several rows.",
    ),
]
PAIR = Annotated[
    list[str] | None, typer.Option("--pair", "-p", help="Only these pairs.")
]
DATASET = Annotated[
    list[str] | None, typer.Option("--dataset", "-d", help="Only these datasets.")
]
COMPRESS = Annotated[
    list[str] | None,
    typer.Option(
        "--compress",
        "-c",
        metavar="NAME",
        help="Compress every strategy's student, too (list compressions), or one "
        "strategy's with -s STRATEGY/NAME.",
    ),
]
SEEDS = Annotated[int | None, typer.Option(help="Number of seeds: 0, 1, ...")]
EPOCHS = Annotated[int | None, typer.Option(help="Epochs instead of the recipe's.")]
SUITE = Annotated[str, typer.Argument(help="A suite's name, or a TOML file.")]


def main() -> None:
    """Run the command line; a user's mistake ends in one message and exit code 2."""
    if "--debug" in sys.argv[1:]:
        app()
    try:
        app()
    except Exception as error:
        from kdbench.api import UserError  # not at start: --help stays light

        if not isinstance(error, UserError):
            raise
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None


def choose_suite(
    host: Host,
    suite: str,
    strategy: list[str] | None,
    pair: list[str] | None,
    dataset: list[str] | None,
    compress: list[str] | None,
    seeds: int | None,
    epochs: int | None,
    measure: list[str] | None = None,
) -> Suite:
    """The suite by name or file, with the command line's choices applied."""
    from kdbench.config import changed, read_suite
    from kdbench.selections import split_selections

    path = Path(suite)
    if path.suffix != ".toml":
        path = host.get("suites", suite).thing.path
    lists = {"strategies": strategy, "pairs": pair, "datasets": dataset}
    lists |= {"compress": compress, "measures": measure}
    changes: dict[str, Any] = {"seeds": seeds, "epochs": epochs}
    changes |= {key: split_selections(texts or []) for key, texts in lists.items()}
    return changed(
        read_suite(path), {k: v for k, v in changes.items() if v not in (None, [])}
    )


@loads_plugins(app)
def run(
    suite: SUITE = "digits",
    strategy: STRATEGY = None,
    pair: PAIR = None,
    dataset: DATASET = None,
    compress: COMPRESS = None,
    seeds: SEEDS = None,
    epochs: EPOCHS = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            "--measure", metavar="NAME", help="Take an optional measure, too."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    data_dir: DATA_DIR = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch missing datasets into --data-dir.")
    ] = False,
    out: OUT = Path("results"),
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes for tiny models.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads of each process that trains, instead of 1 for tiny models "
            "and all cores for others. With 1, --workers run at a time. It changes "
            "the last bits, so keep to one number.",
        ),
    ] = None,
    executor: Annotated[str, typer.Option(help="Where the groups run.")] = "local",
    checkpoint_every: Annotated[
        float, typer.Option(min=0, help="Seconds between checkpoints.")
    ] = 60.0,
    retrain_teachers: Annotated[
        bool,
        typer.Option("--retrain-teachers", help="Train teachers and students anew."),
    ] = False,
    time_limit: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Stop training after 90 (s), 9m or 1h30m, and report what is done "
            "(exit code 75); the same command resumes.",
        ),
    ] = None,
    import_state: Annotated[
        Path | None,
        typer.Option(
            "--import-state",
            metavar="DIR",
            help="First take over what --export-state wrote, on whatever machine; "
            "nothing there yet starts afresh.",
        ),
    ] = None,
    export_state: Annotated[
        Path | None,
        typer.Option(
            "--export-state",
            metavar="DIR",
            help="At the end write all that another machine needs to go on, in files "
            "below 15 MB.",
        ),
    ] = None,
    speed: Annotated[
        bool,
        typer.Option(
            "--speed/--no-speed",
            help="Time the models when training is over; best on an idle machine.",
        ),
    ] = True,
    report: Annotated[
        bool,
        typer.Option(
            "--report/--no-report",
            help="Write the report when all is done ('kdbench report' does it later).",
        ),
    ] = True,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the time went.")
    ] = False,
) -> None:
    """Train, measure and report a suite; run again to resume what was interrupted."""
    began = monotonic()
    from kdbench.stopping import Stopping, seconds_of

    limit_s = None if time_limit is None else seconds_of(time_limit)
    _check_folder(data_dir, download)
    from kdbench.options import Options
    from kdbench.session import Session

    host = host_of_command()
    chosen = choose_suite(
        host, suite, strategy, pair, dataset, compress, seeds, epochs, measure
    )
    options = Options(
        out=out,
        device=device,
        data_dir=data_dir,
        download=download,
        workers=workers or os.cpu_count() or 1,
        executor=executor,
        checkpoint_every_s=checkpoint_every,
        retrain_teachers=retrain_teachers,
        threads=threads,
        profile=profile,
        speed=speed,
        report=report,
        import_state=import_state,
        export_state=export_state,
    )
    stopping = Stopping(limit_s, since=began)
    raise SystemExit(Session(host, chosen, options, stopping).run())


def _check_folder(data_dir: Path | None, download: bool) -> None:
    from kdbench.api import UserError

    if data_dir is not None and not data_dir.is_dir() and not download:
        raise UserError(
            f"data folder {data_dir} does not exist; name the folder that holds the "
            "datasets with --data-dir or KDBENCH_DATA"
        )


@loads_plugins(app)
def plan(
    suite: SUITE = "digits",
    strategy: STRATEGY = None,
    pair: PAIR = None,
    dataset: DATASET = None,
    compress: COMPRESS = None,
    seeds: SEEDS = None,
    epochs: EPOCHS = None,
    out: OUT = Path("results"),
) -> None:
    """Show the grid of a suite, what of it is done, and what the rest will cost."""
    from kdbench import listing

    host = host_of_command()
    chosen = choose_suite(host, suite, strategy, pair, dataset, compress, seeds, epochs)
    listing.show_plan(host, chosen, out)


@loads_plugins(app, "list")
def list_(
    kind: Annotated[
        str,
        typer.Argument(
            help="strategies, models, pairs, datasets, suites, measures, compressions, "
            "executors or renderers."
        ),
    ] = "strategies",
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset", "-d", help="Give the sizes of models for these inputs."
        ),
    ] = "cifar100",
    as_json: AS_JSON = False,
) -> None:
    """List what the plugins offer."""
    from kdbench import listing

    listing.show_list(host_of_command(), kind, as_json, dataset)


@loads_plugins(app)
def show(
    name: Annotated[str, typer.Argument(help="Any name that `list` prints.")],
) -> None:
    """Show one strategy, model, pair, dataset, suite or measure in full."""
    from kdbench import listing

    listing.show_one(host_of_command(), name)


@loads_plugins(app)
def info(
    data_dir: DATA_DIR = None,
    as_json: AS_JSON = False,
) -> None:
    """Show the machine, the versions, the devices and the data found."""
    from kdbench import listing

    listing.show_info(host_of_command(), data_dir, as_json)


def _version(wanted: bool) -> None:
    if wanted:
        from kdbench import __version__

        typer.echo(f"kdbench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show it."),
    ] = False,
) -> None:
    """Which knowledge-distillation strategy gives the best student?"""
    _ = version


# What loads plugins has the options that choose them (plugins_cli says how).
loads_plugins(app)(report_cli.report)
app.command()(report_cli.compare)
loads_plugins(app)(profile_cli.profile)
loads_plugins(app)(export_cli.export)
loads_plugins(app)(reproduce_cli.reproduce)
loads_plugins(app)(plugins_cli.plugins)
app.command()(new_cli.new)
app.command()(check_cli.check)

if __name__ == "__main__":
    main()
