"""`kdbench export`: a finished student, written to be used elsewhere.

Nothing heavy is imported before the command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdbench.plugins_cli import host_of_command


def export(
    run: Annotated[
        str,
        typer.Argument(
            help="An id or its beginning, LABEL, PAIR/LABEL, DATASET/PAIR/LABEL, or of "
            "a teacher MODEL or DATASET/MODEL; #SEED behind it says which of several."
        ),
    ],
    form: Annotated[
        str, typer.Option("--format", "-f", help="onnx, safetensors or torch-export.")
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="DIR", help="Folder of results (default: the only one)."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write (default: export/ID-FORMAT in --from)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an export.")] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(envvar="KDBENCH_DATA", help="Folder that holds the datasets."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where the student answers: cpu, cuda, mps, auto.")
    ] = "cpu",
) -> None:
    """Write a student with its preprocessing and labels, and prove that it is one."""
    from kdbench.execute import find_device
    from kdbench.exporting import export as write
    from kdbench.exporting.runs import find, only_folder, title_of

    folder = source or only_folder(Path("results"))
    record = find(folder, run)
    place = out or folder / "export" / f"{record.id}-{form}"
    proof = write(
        record,
        host_of_command(),
        folder,
        place,
        form,
        force=force,
        data_dir=data_dir,
        device=find_device(device),
    )
    typer.echo(f"{title_of(record.run)}: {place}")
    typer.echo(f"proof: {proof.sentence()}")
    typer.echo(f"{place / 'README.md'} says how to use it")
