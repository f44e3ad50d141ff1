"""The run that a user means, in a folder of results."""

from __future__ import annotations

from pathlib import Path

from kdbench.api import UserError, unknown
from kdbench.records import Record, Run
from kdbench.store import load, runs_in

NAMED = 8
"""Runs that an error lists, at most."""


class NoRun(UserError):
    """No run is called so, or there is no one folder to look in."""


def names_of(run: Run) -> set[str]:
    """What a run may be called by, beside the beginning of its id."""
    if run.is_teacher:
        [model] = run.students
        words = {model, f"{run.dataset}/{model}"}
    else:
        pair = f"{run.pair}/{run.label}"
        words = {run.label, pair, f"{run.dataset}/{pair}"}
    return {run.id} | words | {f"{word}#{run.seed}" for word in words}


def title_of(run: Run) -> str:
    """The longest of its names."""
    return max(names_of(run), key=len)


def only_folder(out: Path) -> Path:
    """The one folder of results in `out`. NoRun where there are none or several."""
    folders = sorted({path.parent for path in out.glob("*/*.json")})
    if len(folders) == 1:
        return folders[0]
    if folders:
        there = ", ".join(str(folder) for folder in folders)
        raise NoRun(f"{out} has several folders of results; give --from: {there}")
    raise NoRun(
        f"no folder of results in {out}; name one with --from DIR, or do 'kdbench run' "
        "first"
    )


def find(folder: Path, text: str) -> Record:
    """The one run called so: by its id, LABEL, PAIR/LABEL, DATASET/PAIR/LABEL, a
    teacher by MODEL or DATASET/MODEL, each with #SEED behind it or not.

    Of an id the beginning is enough. Raises NoRun where there is none, another
    UserError where there are several.
    """
    newest = load([folder]).records
    found = [record for record in newest if text in names_of(record.run)]
    if not found:
        found = [one for one in runs_in(folder) if one.id.startswith(text)]
    if not found:
        slashes = text.count("/")
        known = {name for record in newest for name in names_of(record.run)}
        known = {n for n in known if n.count("/") == slashes and "#" not in n}
        known -= {record.id for record in newest}
        raise NoRun(str(unknown("run", text, known, str(folder))))
    if len(found) > 1:
        some = ", ".join(f"{one.id} ({title_of(one.run)})" for one in found[:NAMED])
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise UserError(
            f"{text!r} names {len(found)} runs in {folder}: {some}{more}; say which by "
            "its id or whole name"
        )
    return found[0]
