"""Atomic, checksummed checkpoints: one file per run, and the one before it.

Layout: the line `MAGIC`, a line with the sha256 of all that follows, a line of JSON
(the format, the engine's version, the run's id), then the state (torch.save). The lines
are the same in every format: a file of another version is told from a damaged one
without torch. A reader takes the newest file that is whole and of this version.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from kdbench.atomic import clear_unfinished, write_whole
from kdbench.engine.faults import is_out_of_memory
from kdbench.records import ENGINE

MAGIC = b"kdbench checkpoint\n"
FORMAT = 2


class _Useless(Exception):
    """Why a file cannot be gone on from: it "is ..."."""


def save(folder: Path, run_id: str, state: Mapping[str, Any]) -> None:
    """Write the state so that a crash at any moment leaves a whole file.

    Raises Unwritable where it cannot be written; what was there before stays.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    body = buffer.getbuffer()
    header = json.dumps({"format": FORMAT, "engine": ENGINE, "run": run_id}) + "\n"
    checksum = hashlib.sha256(header.encode())
    checksum.update(body)
    lines = MAGIC + checksum.hexdigest().encode() + b"\n" + header.encode()
    newest, previous = _paths(folder, run_id)
    write_whole(newest, lines, body, keep=previous)


def load(
    folder: Path, run_id: str, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any] | None:
    """The newest usable state of this run, or None where there is none.

    `say` is told what lies there and cannot be used, and why. Tensors are on the CPU.
    """
    useless = []
    for name, path in zip(
        ("its checkpoint", "the one before it"), _paths(folder, run_id), strict=True
    ):
        try:
            state = _read(path, run_id)
        except FileNotFoundError:
            continue
        except _Useless as why:
            useless.append(f"{name} is {why}")
            continue
        if useless:
            say(f"{useless[0]}: it goes on from the one before it")
        return state
    if useless:
        say(f"{' and '.join(useless)}: it starts again")
    return None


def newest(folder: Path, run_id: str) -> Path | None:
    """The newest whole file of this run and version, or None where there is none."""
    for path in _paths(folder, run_id):
        with suppress(FileNotFoundError, _Useless):
            _body(path, run_id)
            return path
    return None


def reached(state: Mapping[str, Any]) -> tuple[int, int]:
    """The epoch and the step in it from which a run goes on by this state."""
    if "position" in state:
        epoch, step = state["position"]
        return epoch, step
    return state["epoch"], 0  # a loop of a strategy's own begins whole epochs


def _read(path: Path, run_id: str) -> dict[str, Any]:
    body = _body(path, run_id)
    try:
        state: dict[str, Any] = torch.load(
            io.BytesIO(body), map_location="cpu", weights_only=True
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        if is_out_of_memory(error):
            raise
        raise _Useless("unreadable to this version of PyTorch") from None
    return state


def _body(path: Path, run_id: str) -> bytes:
    """The state as it lies in a file that is whole, of this version and this run."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _Useless(f"unreadable ({error.strerror or error})") from None
    magic, known, rest = _lines(content)
    if magic != MAGIC:
        raise _Useless("damaged, or of an older version of kdbench")
    if hashlib.sha256(rest).hexdigest().encode() != known:
        raise _Useless("damaged")
    header, _, body = bytes(rest).partition(b"\n")
    _check(json.loads(header), run_id)
    return body


def _lines(content: bytes) -> tuple[bytes, bytes, memoryview]:
    """The first line, the checksum, and what it is of."""
    start = len(MAGIC)
    end = start + 2 * hashlib.sha256().digest_size
    return content[:start], content[start:end], memoryview(content)[end + 1 :]


def _check(header: Mapping[str, Any], run_id: str) -> None:
    if (header.get("format"), header.get("engine")) != (FORMAT, ENGINE):
        raise _Useless("of another version of kdbench")
    if header.get("run") != run_id:
        raise _Useless("of another run")


def discard(folder: Path, run_id: str) -> None:
    """Remove a finished run's checkpoints, and what was left half-written."""
    for path in _paths(folder, run_id):
        path.unlink(missing_ok=True)
        clear_unfinished(path)


def _paths(folder: Path, run_id: str) -> tuple[Path, Path]:
    return folder / f"{run_id}.ckpt", folder / f"{run_id}.previous.ckpt"
