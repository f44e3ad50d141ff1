"""How a state is written: new parts of what changed, the index, away with old parts."""

from __future__ import annotations

import errno
import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kdbench import __version__
from kdbench.atomic import Unwritable, clear_unfinished, write_whole
from kdbench.carrying.state import (
    INDEX,
    PARTS,
    Index,
    Member,
    Part,
    Piece,
    counted,
    sha256_of,
    visible,
)

TRIES = 5
PER_PIECE = 5 * 512
"""Bytes that a piece takes in a tar file beside its own, at most: headers, filling."""

Files = Mapping[str, Path]
"""By its path in the state where a member lies."""


class Changed(Exception):
    """A file is another one now: another process trains on."""


@dataclass(frozen=True)
class Written:
    """How many files a state is, and how many of them had to be written."""

    files: int
    size: int
    new: int
    new_size: int

    def __str__(self) -> str:
        whole = f"{counted(self.files, 'file')}, {self.size / 1e6:.1f} MB"
        return f"{whole} ({self.new} of them new, {self.new_size / 1e6:.1f} MB)"


def write(
    to: Path, suite: str, old: Index | None, find: Callable[[], Files], limit: int
) -> tuple[Index, Written]:
    """Write the state in files of at most `limit` bytes, whole or not at all.

    `find` gives the files; it is asked again where other processes change them
    meanwhile. `old` is the state that is there, and stays where there are no files.
    Raises Unwritable.
    """
    for _ in range(TRIES):
        try:
            empty = Index(kdbench=__version__, suite=suite)
            files = find()
            if not files:
                return old or empty, Written(0, 0, 0, 0)
            if old is None:
                write_whole(to / INDEX, _text(empty))
            return _write(to, suite, old or empty, files, limit)
        except (FileNotFoundError, Changed):
            continue
        except Unwritable:
            raise
        except OSError as error:
            why = error.strerror or str(error)
            raise Unwritable(error.errno, why, str(to)) from error
    why = "other processes change what it is of all the time"
    raise Unwritable(errno.EAGAIN, why, str(to))


def _write(
    to: Path, suite: str, old: Index, files: Files, limit: int
) -> tuple[Index, Written]:
    sizes = {path: file.stat().st_size for path, file in sorted(files.items())}
    members = {
        path: Member(path=path, size=size, sha256=sha256_of(files[path]))
        for path, size in sizes.items()
    }
    before = _unchanged(old, members)
    kept = [p for p in old.parts if _stays(to, p, before, limit)]
    packer = _Packer(to, files, members, limit)
    try:
        lasting = [path for path in members if not path.startswith("checkpoints/")]
        for paths in (lasting, [path for path in members if path not in lasting]):
            packer.pack(paths, before, kept)
        index = Index(
            kdbench=__version__,
            suite=suite,
            members=tuple(members.values()),
            parts=tuple(sorted((*kept, *packer.parts), key=lambda part: part.file)),
        )
        text = _text(index)
        if index != old:
            write_whole(to / INDEX, text)
    except (OSError, Changed):  # not what interrupts: the index may name them by then
        _remove(to, packer.written - _names(old))
        raise
    _remove(to, {n for n in visible(to) if PARTS.fullmatch(n)} - _names(index))
    for path in (to / INDEX, to / "part-*"):
        clear_unfinished(path)
    new = [part.size for part in index.parts if part.file in packer.written]
    new += [len(text)] if index != old else []
    size = sum(part.size for part in index.parts) + len(text)
    return index, Written(len(index.parts) + 1, size, len(new), sum(new))


def _text(index: Index) -> bytes:
    return index.model_dump_json(indent=1).encode()


def _names(index: Index) -> set[str]:
    return {part.file for part in index.parts}


def _remove(folder: Path, names: set[str]) -> None:
    for name in names:
        with suppress(OSError):  # what is left over is in no index
            (folder / name).unlink()


def _unchanged(old: Index, members: Mapping[str, Member]) -> dict[str, list[Piece]]:
    """By its path the pieces of a member that is the same as in the old state."""
    found: dict[str, list[Piece]] = {}
    same = {m.path for m in old.members if members.get(m.path) == m}
    for piece in (p for part in old.parts for p in part.pieces):
        if piece.path in same:
            found.setdefault(piece.path, []).append(piece)
    return found


def _stays(to: Path, part: Part, same: Mapping[str, object], limit: int) -> bool:
    """Whether a part is as it would be now; a small one is rather put with others."""
    if not (limit <= 2 * part.size and part.size <= limit):
        return False
    if not all(piece.path in same for piece in part.pieces):
        return False
    path = to / part.file
    return path.is_file() and sha256_of(path) == part.sha256


class _Packer:
    """Fills parts, one after another, and writes each that is full."""

    def __init__(
        self, to: Path, files: Files, members: Mapping[str, Member], limit: int
    ):
        self.parts: list[Part] = []
        self.written: set[str] = set()
        self._to = to
        self._files = files
        self._members = members
        self._limit = limit - 2 * tarfile.RECORDSIZE  # what a tar file ends with
        self._pieces: list[tuple[Piece, bytes]] = []
        self._room = self._limit

    def pack(
        self,
        paths: Sequence[str],
        before: Mapping[str, Sequence[Piece]],
        kept: Sequence[Part],
    ) -> None:
        """Put these members into parts of their own, but for what is in those kept."""
        there = {piece for part in kept for piece in part.pieces}
        for path in paths:
            cut = before.get(path, ())
            left = [piece for piece in cut if piece not in there]
            if cut and not left:
                continue
            content = self._content(path)
            if len(left) < len(cut):  # the others are to fit to those that are there
                for piece in left:
                    self._put(piece, content)
            else:
                for piece in self._cut(path, len(content)):
                    self._put(piece, content)
        self._flush()

    def _content(self, path: str) -> bytes:
        content = self._files[path].read_bytes()
        if hashlib.sha256(content).hexdigest() != self._members[path].sha256:
            raise Changed
        return content

    def _cut(self, path: str, size: int) -> Iterator[Piece]:
        """The pieces that fill what room there is; a small member is never cut."""
        start = 0
        while start < size:
            left = size - start
            small = left <= self._limit // 2
            if self._room <= PER_PIECE or (small and left + PER_PIECE > self._room):
                self._flush()
            piece = Piece(
                path=path, start=start, size=min(left, self._room - PER_PIECE)
            )
            yield piece
            start += piece.size

    def _put(self, piece: Piece, content: bytes) -> None:
        if piece.size + PER_PIECE > self._room:
            self._flush()
        self._pieces.append((piece, content[piece.start :][: piece.size]))
        self._room -= piece.size + PER_PIECE

    def _flush(self) -> None:
        if not self._pieces:
            return
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for piece, content in self._pieces:
                whole = self._members[piece.path].size
                entry = tarfile.TarInfo(piece.name_of(whole))
                entry.size = piece.size
                tar.addfile(entry, io.BytesIO(content))
        known = hashlib.sha256(buffer.getbuffer()).hexdigest()
        part = Part(
            file=f"part-{known[:16]}.tar",
            size=buffer.tell(),
            sha256=known,
            pieces=tuple(piece for piece, _ in self._pieces),
        )
        path = self._to / part.file
        if not (path.is_file() and sha256_of(path) == known):
            self.written.add(part.file)
            write_whole(path, buffer.getbuffer())
        self.parts.append(part)
        self._pieces = []
        self._room = self._limit
