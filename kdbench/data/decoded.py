"""The decoded cache: images of a set as uint8, decoded once and mapped into memory.

One folder for each fingerprint (contents of the set's files, and the form of its
images) in `cache_dir()/decoded`: `train.npy` and `test.npy` (N, C, H, W), their
labels, and a manifest. It is written beside its place and renamed when it is whole, by
one process at a time; a reader sees all of it or nothing. At every opening the files
are compared with the manifest: every byte of a set of common size (a tenth of a second
for CIFAR), sizes, headers, labels and a sample of the bytes of a larger one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from kdbench.api import UserError
from kdbench.cache import cache_dir
from kdbench.data.images import Form, Found, Labels, Part, Pixels
from kdbench.data.writing import write_labels, write_pixels
from kdbench.records import digest

FORMAT = 2
"""Raise it when the same files would be decoded to something else."""
SPLITS = ("train", "test")
WHOLE_BYTES = 2**28
"""Files up to this size are checked in full."""
SAMPLES, SAMPLE_BYTES = 16, 4096
SPARE_BYTES = 2**26
"""Left free on the disk beside what the cache takes."""


class Damaged(Exception):
    """Why a cached set cannot be used as it is."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """One decoded split: `pixels` (N, C, H, W) over the mapped file; labels (N,)."""

    pixels: Pixels
    labels: Mapping[str, Labels]
    shards: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An opened set. `mean` and `std` are of the training pixels, per channel, 0..255.

    `notes` are sentences that a user must know.
    """

    splits: Mapping[str, Images]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...]


def decoded(found: Found, form: Form) -> Decoded:
    """The set's images out of the cache; decoded now if they are not there.

    Raises UserError where an image cannot be used, or the disk has no room.
    """
    folder = cache_dir() / "decoded" / fingerprint(found, form)
    try:
        return _open(folder)
    except (FileNotFoundError, Damaged):
        pass  # looked at again when no other process is at work on it
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            return _open_or_build(folder, found, form)
    except OSError as error:
        raise UserError(
            f"decoded images cannot be kept in {folder.parent}: {error}\n"
            "  name another folder with KDBENCH_CACHE"
        ) from error


def _open_or_build(folder: Path, found: Found, form: Form) -> Decoded:
    note: tuple[str, ...] = ()
    try:
        return _open(folder)
    except FileNotFoundError:
        pass
    except Damaged as why:
        note = (f"the decoded images in {folder} were damaged ({why}); made again",)
    _build(folder, found, form)
    opened = _open(folder)
    return Decoded(**{**vars(opened), "notes": (*note, *opened.notes)})


def fingerprint(found: Found, form: Form) -> str:
    """The same for the same files and form, wherever the folder lies."""
    about = [FORMAT, vars(form), dict(found.options), contents(found)]
    return digest(about, length=24)


def contents(found: Found) -> str:
    """Hash of the names and bytes of a set's files.

    They are read once: what was found is kept in the cache under the folder, names,
    sizes and times, among them the one of the last change, which nobody can set.
    Raises UserError where it cannot be kept.
    """
    facts: list[object] = [str(found.root.resolve())]
    for file in found.files:
        stat = file.stat()
        name = file.relative_to(found.root).as_posix()
        facts.append([name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    known = cache_dir() / "contents" / digest(facts, length=24)
    if known.is_file():
        return known.read_text("ascii")
    total = hashlib.blake2b(digest_size=16)
    for file in found.files:
        total.update(file.relative_to(found.root).as_posix().encode() + b"\0")
        total.update(_hash_of(file))
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        fresh = known.with_suffix(f".{os.getpid()}")
        _write_whole(fresh, total.hexdigest().encode())
        fresh.replace(known)
    except OSError as error:
        raise UserError(
            f"what {found.root} holds cannot be kept in {known.parent}: {error}\n"
            "  name another folder with KDBENCH_CACHE"
        ) from error
    return total.hexdigest()


def _hash_of(file: Path) -> bytes:
    try:
        with file.open("rb") as data:
            return hashlib.file_digest(data, hashlib.blake2b).digest()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error


def _build(folder: Path, found: Found, form: Form) -> None:
    """Decode everything into a new folder, and put it in the place of any old one."""
    parts = found.read()
    _check_room(folder.parent, sum(p.items for p in parts.values()), form)
    fresh = folder.with_suffix(".part")
    for stale in (fresh, folder):
        shutil.rmtree(stale, ignore_errors=True)
    fresh.mkdir()
    try:
        written = write_pixels(fresh, parts, form, found.root.name)
        manifest = {
            "format": FORMAT,
            "from": str(found.root),
            "form": vars(form),
            "splits": {s: _describe(fresh, s, part) for s, part in parts.items()},
            **written,
        }
        _write_whole(fresh / "manifest.json", json.dumps(manifest, indent=1).encode())
        fresh.rename(folder)
        _sync(folder.parent)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _check_room(folder: Path, items: int, form: Form) -> None:
    needed = items * int(np.prod(form.shape)) + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"decoded images of {items:,} items take {needed / 1e9:.1f} GB in {folder},"
            f" where {free / 1e9:.1f} GB are free\n"
            "  make room, or name a folder on another disk with KDBENCH_CACHE"
        )


def _describe(folder: Path, split: str, part: Part) -> dict[str, Any]:
    labels = write_labels(folder / f"{split}-labels.npy", part)
    pixels = folder / f"{split}.npy"
    return {
        "items": part.items,
        "bytes": pixels.stat().st_size,
        "checksum": _checksum(pixels),
        "columns": list(part.labels),
        "labels_crc32": zlib.crc32(labels),
        "shards": part.shards,
    }


def _checksum(path: Path) -> int:
    """That of a whole file; of a large one, of blocks from its header to its end."""
    size = path.stat().st_size
    total = 0
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            while block := file.read(2**20):
                total = zlib.crc32(block, total)
            return total
        for number in range(SAMPLES):
            file.seek(max(0, size - SAMPLE_BYTES) * number // (SAMPLES - 1))
            total = zlib.crc32(file.read(SAMPLE_BYTES), total)
    return total


def _open(folder: Path) -> Decoded:
    """Raises FileNotFoundError where there is none, and Damaged."""
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        splits = {s: _open_split(folder, s, manifest["splits"][s]) for s in SPLITS}
        return Decoded(
            splits=splits,
            mean=tuple(manifest["mean"]),
            std=tuple(manifest["std"]),
            notes=tuple(manifest["notes"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from error


def _open_split(folder: Path, split: str, known: Mapping[str, Any]) -> Images:
    pixels, labels = folder / f"{split}.npy", folder / f"{split}-labels.npy"
    if pixels.stat().st_size != known["bytes"]:
        raise Damaged(f"{pixels.name} has not its {known['bytes']} bytes")
    if _checksum(pixels) != known["checksum"]:
        raise Damaged(f"{pixels.name} has other bytes than were written")
    if zlib.crc32(labels.read_bytes()) != known["labels_crc32"]:
        raise Damaged(f"{labels.name} has other bytes than were written")
    rows = np.load(labels)
    return Images(
        pixels=_mapped(pixels),
        labels=dict(zip(known["columns"], rows, strict=True)),
        shards=tuple((name, items) for name, items in known["shards"]),
    )


def _mapped(path: Path) -> Pixels:
    """Copy-on-write, so that nothing can change the file; read-only if that fails.

    Linux promises memory for what may be copied, and refuses a file of more bytes than
    the machine has memory and swap.
    """
    try:
        return np.load(path, mmap_mode="c")  # type: ignore[no-any-return]
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


def _write_whole(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the renaming last; Windows cannot open folders, and needs no such thing."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
