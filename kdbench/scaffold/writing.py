"""The files of a new plugin: rendered from templates, written whole or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from kdbench import __version__
from kdbench.api import UserError
from kdbench.scaffold.naming import Names

TEMPLATES = Path(__file__).with_name("templates")

OFFERED: Mapping[str, tuple[str, ...]] = {
    "strategy": ("{module}",),
    "dataset": ("{module}",),
    "pair": ("{module}", "{module}_teacher", "{module}_student"),
    "measure": ("{module}",),
}
"""Kind -> names of what such a plugin offers."""

RUN: Mapping[str, str] = {
    "strategy": "kdbench run digits -s {module} -s kd",
    "dataset": "kdbench run digits -d {module} -p split-mlp -s kd -s scratch",
    "pair": "kdbench run digits -p {module} -s kd -s scratch",
    "measure": "kdbench run digits -s kd --measure {module}",
}
"""Kind -> the command that runs such a plugin."""


def run_command(kind: str, names: Names) -> str:
    return RUN[kind].format(module=names.module)


def offered(kind: str, names: Names) -> tuple[str, ...]:
    return tuple(text.format(module=names.module) for text in OFFERED[kind])


def rendered(kind: str, names: Names) -> dict[str, str]:
    """Path in the new folder -> text of the file, in the order to be read in."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,  # noqa: S701 - it writes Python, TOML and Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    files = {
        "pyproject.toml": "pyproject.toml.j2",
        f"{names.module}.py": f"{kind}/module.py.j2",
        f"tests/test_{names.module}.py": f"{kind}/test.py.j2",
        "README.md": "README.md.j2",
    }
    values = {
        "kind": kind,
        "distribution": names.distribution,
        "module": names.module,
        "class_name": names.capitalised,
        "command": run_command(kind, names),
        "version": ".".join(__version__.split(".")[:2]),
    }
    return {
        path: environment.get_template(template).render(values)
        for path, template in files.items()
    }


def refuse_target(target: Path) -> None:
    """Raise UserError where there is such a folder, or none that it could be in."""
    if target.is_symlink() or target.exists():
        raise UserError(
            f"{target} exists already and is left as it is; choose another name, "
            "another place with --in, or move it away"
        )
    if not target.parent.is_dir():
        raise UserError(
            f"there is no folder {target.parent}; make it, or name another with --in"
        )


def write(files: Mapping[str, str], target: Path) -> None:
    """Write these files as the new folder `target`, all of them or none.

    Raises UserError where nothing can be written.
    """
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        for path, text in files.items():
            file = fresh / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
        fresh.rename(target)
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror or error}; nothing is left there; "
            "name a folder that can be written to with --in"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
