"""`kdbench profile`: how large and how fast any network is.

Nothing heavy is imported before the command runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdbench.plugins_cli import host_of_command

if TYPE_CHECKING:
    from kdbench.profiles import Forms, Profile

INTERRUPTED = 130


def profile(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL_OR_CHECKPOINT...",
            help="A run as `export` takes it; a model's name, NAME/COMPRESSION, "
            "timm:NAME, torchvision:NAME; a record's .json; a .safetensors file of "
            "kdbench's.",
        ),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            "-d",
            help="Inputs and outputs of models by name (default: cifar100).",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="DIR",
            help="Folder of results (default: the only one); its runs' names come "
            "before models'.",
        ),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime", "-r", help="Only eager, compiled, onnx or cuda-graph."
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option("--precision", help="Only float32, bfloat16 or int8."),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Numbers of threads (default: 1 and all; 1 on a GPU)."
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Batch of the throughput (default: the best one)."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    data_dir: Annotated[
        Path | None,
        typer.Option(envvar="KDBENCH_DATA", help="Folder that holds the datasets."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the size and speed of models, finished runs and files of weights."""
    from kdbench.api import UserError
    from kdbench.engine.faults import DeviceLost, OutOfMemory
    from kdbench.execute import find_device
    from kdbench.profiles import profile as measure
    from kdbench.profiles import tried
    from kdbench.profiles.targets import Finder

    place = find_device(device)
    wanted = _forms(runtime, precision, threads, batch, place)
    finder = Finder(host_of_command(), dataset, source, data_dir)
    found = [finder.find(text) for text in dict.fromkeys(targets)]
    for target in found:
        tried(target)
    profiles: list[Profile] = []
    interrupted = False
    try:
        for number, target in enumerate(found, start=1):
            tell = partial(_tell, f"{number}/{len(found)} {target.title}")
            profiles.append(measure(target, place, wanted, tell))
    except KeyboardInterrupt:
        interrupted = True
    except (OutOfMemory, DeviceLost) as error:
        raise UserError(f"{found[len(profiles)].title}: {error}") from error
    finally:  # an error must not cost what is measured of others
        if as_json:
            _print_json(profiles, place, wanted)
        elif profiles:
            _print(profiles, place, wanted)
    if interrupted:
        left = len(found) - len(profiles)
        typer.echo(f"interrupted: {left} of {len(found)} not measured", err=True)
        raise SystemExit(INTERRUPTED)


def _forms(
    runtimes: list[str] | None,
    precisions: list[str] | None,
    threads: list[int] | None,
    batch: int | None,
    device: str,
) -> Forms:
    """What is asked for; UserError for what is unknown, or not on this machine."""
    from kdbench.api import UserError, unknown
    from kdbench.measure.machine import cores
    from kdbench.measure.runtimes import PRECISIONS, RUNTIMES
    from kdbench.profiles import Forms

    for what, given, known in (
        ("runtime", runtimes, RUNTIMES),
        ("precision", precisions, PRECISIONS),
    ):
        for name in given or ():
            if name not in known:
                raise unknown(what, name, known)
    here = cores()
    too_many = [number for number in threads or () if number > here]
    if too_many:
        raise UserError(
            f"--threads {too_many[0]}: this process may use {here} of the machine's "
            "cores; give no more"
        )
    kind = device.partition(":")[0]
    only_on = {"onnx": "cpu", "cuda-graph": "cuda"}
    there = [name for name in RUNTIMES if only_on.get(name, kind) == kind]
    usual = (1, here) if kind == "cpu" else (1,)
    return Forms(
        runtimes=tuple(dict.fromkeys(runtimes or there)),
        precisions=tuple(dict.fromkeys(precisions or PRECISIONS)),
        threads=tuple(dict.fromkeys(threads or usual)),
        batch=batch,
    )


def _tell(which: str, what: str) -> None:
    typer.echo(f"{which}: {what}", err=True)


def _print(profiles: Sequence[Profile], device: str, wanted: Forms) -> None:
    from kdbench.measure.machine import governor
    from kdbench.profiles.tables import machine_line, reading, size_table, speed_table
    from kdbench.provenance import environment
    from kdbench.report.terminal import print_table, wide_console

    console = wide_console()
    for table in (size_table(profiles), speed_table(profiles)):
        print_table(table, console)
    here = environment(device, max(wanted.threads))
    lines = [machine_line(here, wanted.threads, governor()), *reading(profiles)]
    console.print()
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _print_json(profiles: Sequence[Profile], device: str, wanted: Forms) -> None:
    import json

    from kdbench.measure.machine import governor
    from kdbench.provenance import environment

    whole = {
        "environment": environment(device, max(wanted.threads)),
        "governor": governor(),
        "noisy": any(t.noisy for p in profiles for t in p.timings),
        "profiles": [profile.described() for profile in profiles],
    }
    typer.echo(json.dumps(whole, indent=1))
