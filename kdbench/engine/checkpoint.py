"""Atomic, checksummed checkpoints: one file per run, and the one before it.

Layout: the 32 bytes of the body's sha256, then the body (torch.save). A reader takes
the newest file that is whole.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

FORMAT = 1


def save(folder: Path, run_id: str, state: Mapping[str, Any]) -> None:
    """Write the state so that a crash at any moment leaves a whole file."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "run": run_id, **state}, buffer)
    body = buffer.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    newest, previous = _paths(folder, run_id)
    fresh = newest.with_suffix(".tmp")
    with fresh.open("wb") as file:
        file.write(hashlib.sha256(body).digest())
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    if newest.exists():
        newest.replace(previous)
    fresh.replace(newest)


def load(folder: Path, run_id: str) -> dict[str, Any] | None:
    """The newest whole state of this run, or None where there is none."""
    for path in _paths(folder, run_id):
        state = _read(path)
        if state and state["format"] == FORMAT and state["run"] == run_id:
            return state
    return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    known, body = content[:32], content[32:]
    if hashlib.sha256(body).digest() != known:
        return None  # torn or damaged: the one before it serves
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(body), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        return None  # written by a torch that this one cannot read
    return state


def discard(folder: Path, run_id: str) -> None:
    """Remove a finished run's checkpoints."""
    for path in _paths(folder, run_id):
        path.unlink(missing_ok=True)


def _paths(folder: Path, run_id: str) -> tuple[Path, Path]:
    return folder / f"{run_id}.ckpt", folder / f"{run_id}.previous.ckpt"
