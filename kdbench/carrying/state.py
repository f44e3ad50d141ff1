"""A suite's state in files: an index, and the parts that it names with their hashes.

The parts are tar files, each below `LIMIT` bytes and named by what it holds, so that
one that stays the same is not written again. A file that is too large for one part lies
in several, as pieces. The index is written last: it is the state that it names.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from kdbench.api import UserError
from kdbench.records import Strict

FORMAT = 1
INDEX = "state.json"
LIMIT = 15_000_000
"""Bytes of a part: what is lent for minutes often takes files of up to 16 MB."""

WORD = r"[\w+-][\w.+-]*"
MEMBERS = re.compile(
    rf"{WORD}\.json|checkpoints/\w+\.ckpt|(weights|imported)/{WORD}\.safetensors"
)
"""All that a state can hold, with posix separators: nothing leaves its folder."""

PARTS = re.compile(r"part-[0-9a-f]{16}\.tar")


class Piece(Strict):
    """So many bytes of a member, from `start`: one file of a part."""

    path: str
    start: int = Field(ge=0)
    size: int = Field(ge=1)

    def name_of(self, whole: int) -> str:
        """Its name in the part; `whole` is the member's size."""
        return self.path if self.size == whole else f"{self.path}.{self.start:012d}"


class Part(Strict):
    """A tar file of pieces, in this order."""

    file: str
    size: int
    sha256: str
    pieces: tuple[Piece, ...]

    @field_validator("file")
    @classmethod
    def _is_ours(cls, name: str) -> str:
        if not PARTS.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a part")
        return name


class Member(Strict):
    """A file of the suite's folder, or of the cache."""

    path: str
    size: int = Field(ge=1)
    sha256: str

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        if not MEMBERS.fullmatch(path):
            raise ValueError(f"{path!r} is no file of a state")
        return path


class Index(Strict):
    """What a state is: of which suite, its members, and the parts that they lie in."""

    format: Literal[1] = 1
    kdbench: str
    suite: str
    members: tuple[Member, ...] = ()
    parts: tuple[Part, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> Index:
        sizes = {member.path: member.size for member in self.members}
        if len(sizes) != len(self.members):
            raise ValueError("a member is named twice")
        pieces = sorted(
            (p.path, p.start, p.size) for part in self.parts for p in part.pieces
        )
        reached = dict.fromkeys(sizes, 0)
        for path, start, size in pieces:
            if reached.get(path) != start:
                raise ValueError(f"the pieces of {path!r} do not fit together")
            reached[path] += size
        for path, size in sizes.items():
            if reached[path] != size:
                raise ValueError(f"pieces of {path!r} are missing")
        return self

    @property
    def sizes(self) -> dict[str, int]:
        return {member.path: member.size for member in self.members}


def visible(folder: Path) -> list[str]:
    """The names in a folder but for hidden ones; none where there is no folder.

    Raises UserError where it cannot be read.
    """
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"no folder {folder}: {why}; name another one") from error
    return sorted(name for name in names if not name.startswith("."))


def read_index(folder: Path) -> Index | None:
    """The index of the state in a folder; None where there is no state yet.

    An empty index is written before the first parts are: where it is alone, that write
    was cut short, and parts without any were copied without theirs. Raises UserError
    for these, where something else lies there, and where it cannot be used.
    """
    there = visible(folder)
    if not there:
        return None
    if INDEX not in there:
        holds = "parts of a state" if PARTS.fullmatch(there[0]) else "no state"
        raise UserError(
            f"{folder} holds {holds}: there is no {INDEX}, and {there[0]} is there; "
            "give the folder of --export-state, with all of its files"
        )
    try:
        known = json.loads((folder / INDEX).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(folder / INDEX, _why(error)) from None
    version = known.get("format") if isinstance(known, dict) else None
    if version != FORMAT and isinstance(version, int):
        raise UserError(
            f"the state in {folder} is of format {version}, written by kdbench "
            f"{known.get('kdbench')}; this one reads format {FORMAT}: use that version"
        )
    try:
        index = Index.model_validate(known)
    except ValidationError as error:
        raise _damaged(folder / INDEX, error.errors()[0]["msg"]) from None
    return index if index.members else None


def check(folder: Path, index: Index, suite: str) -> None:
    """Raise UserError unless it is of this suite, and every part is there and whole."""
    if index.suite != suite:
        raise UserError(
            f"the state in {folder} is one of the suite {index.suite!r}, and this is "
            f"{suite!r}; give each suite a folder of its own"
        )
    sizes = index.sizes
    for part in index.parts:
        path = folder / part.file
        if not path.is_file():
            raise UserError(
                f"{path} is missing: the state in {folder} has {len(index.parts)} "
                "parts; copy it once more from where it was exported"
            )
        try:
            if sha256_of(path) != part.sha256:
                raise _damaged(path, f"it is not the file that {INDEX} names")
            with tarfile.open(path, "r:") as tar:
                found = [(m.name, m.size, m.isreg()) for m in tar]
        except (OSError, tarfile.TarError) as error:
            raise _damaged(path, _why(error)) from None
        named = [(p.name_of(sizes[p.path]), p.size, True) for p in part.pieces]
        if found != named:
            raise _damaged(path, f"it holds other files than {INDEX} names")


def unpack(folder: Path, index: Index, to: Path) -> None:
    """Lay every member below `to`. Raises UserError for one with another hash."""
    for name in {Path(member.path).parent for member in index.members}:
        (to / name).mkdir(parents=True, exist_ok=True)
    for part in index.parts:
        with tarfile.open(folder / part.file, "r:") as tar:
            for entry, piece in zip(tar, part.pieces, strict=True):
                stream = tar.extractfile(entry)
                assert stream is not None  # noqa: S101 - check() saw regular files
                path = to / piece.path
                with path.open("r+b" if path.exists() else "wb") as file:
                    file.seek(piece.start)
                    file.write(stream.read())
    for member in index.members:
        if sha256_of(to / member.path) != member.sha256:
            raise _damaged(folder / INDEX, f"{member.path} has another hash")


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_id_of(path: str) -> str:
    """Of which run a record, weights or a checkpoint is."""
    return path.rpartition("/")[2].partition(".")[0]


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is damaged: {why}; copy the state once more from where it was "
        "exported, all of its files"
    )


def _why(error: Any) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
