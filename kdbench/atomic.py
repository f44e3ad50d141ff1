"""Files written whole or not at all, at whatever moment the writing stops."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path


class Unwritable(OSError):
    """A file of the results that could not be written: the session cannot go on."""

    def __str__(self) -> str:
        return (
            f"cannot write {self.filename}: {self.strerror}; finished runs and "
            "checkpoints are kept: free space there (or make it writable), and the "
            "same command goes on"
        )


def write_whole(
    path: Path, *parts: bytes | memoryview, keep: Path | None = None
) -> None:
    """Write these parts, one after another, as the file `path`.

    A crash at any moment leaves the old file or the new one. Two processes may write
    the same path: the last one wins. The old file goes to `keep`, where that is given.
    Raises Unwritable, with nothing of the new file left.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with fresh.open("wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            if keep is not None and path.exists():
                path.replace(keep)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as error:
        why = error.strerror or str(error)
        raise Unwritable(error.errno, why, str(path)) from error
    _sync(path.parent)


def clear_unfinished(path: Path) -> None:
    """Remove what killed processes had begun to write as this file."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make the renaming last. Not every system can (Windows opens no folders)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
