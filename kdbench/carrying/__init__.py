"""A run that goes on elsewhere: its state in files, written and taken over.

The state is what a suite's folder holds of its runs: records, the weights of finished
students and teachers, a checkpoint of each run that is under way; and the checkpoints
from elsewhere that its pairs name. Reports, traces, locks, decoded data and the cache
of teachers follow from it, or are no part of it.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from kdbench import __version__
from kdbench.api import UserError
from kdbench.atomic import Unwritable
from kdbench.carrying.packing import write
from kdbench.carrying.state import (
    INDEX,
    LIMIT,
    MEMBERS,
    PARTS,
    Index,
    check,
    read_index,
    visible,
)
from kdbench.carrying.taking import Folder, take, told
from kdbench.config import Suite
from kdbench.engine import checkpoint
from kdbench.plugins import Host
from kdbench.records import Record
from kdbench.stopping import Stopping
from kdbench.store import file_name, read_record
from kdbench.teachers.imported import PREFIX, path_of


class Overtaken(Unwritable):
    """The state in a folder is another one than this command left or took over."""

    def __str__(self) -> str:
        return (
            f"{self.filename} stays as it is: {self.strerror}; what this command has "
            "done is kept in --out: give another folder to --export-state, and it is "
            "written there"
        )


class Carrier:
    """The state of one `kdbench run`: taken over before it, written after it.

    `source` and `target` are the folders of `--import-state` and `--export-state`.
    """

    def __init__(
        self,
        host: Host,
        suite: Suite,
        folder: Path,
        source: Path | None,
        target: Path | None,
        stopping: Stopping,
        say: Callable[[str], None],
    ):
        self._host = host
        self._suite = suite
        self._folder = folder
        self._source = source
        self._target = target
        self._stopping = stopping
        self._say = say
        self._first: Index | None = None
        self._known: Index | None = None

    def start(self) -> None:
        """Check where the state is to go, and take one over.

        Raises UserError before anything is changed.
        """
        if self._target is not None:
            self._first = self._known = self._checked(self._target)
        if self._source is not None:
            self._take(self._source)

    @contextmanager
    def written(self) -> Iterator[None]:
        """Write the state at the end of the block, however it ends. Raises Unwritable.

        What the block raises is raised, also where the state cannot be written then.
        """
        try:
            yield
        except BaseException:
            with suppress(KeyboardInterrupt):  # it ends anyway
                self._try_to_write()
            raise
        self._write()

    def _try_to_write(self) -> None:
        try:
            self._write()
        except Exception as why:  # noqa: BLE001 - it must not hide the first error
            self._say(f"state: {why}")

    def tell_if_idle(self) -> None:
        """Say that the command has brought nothing further, where that is so."""
        if self._target is not None and self._known == self._first:
            self._say(f"state: nothing got further, and {self._target} stays as it was")

    def _checked(self, target: Path) -> Index | None:
        """The state that is in the folder. UserError where none may be written."""
        place, results = target.resolve(), self._folder.resolve()
        if place.is_relative_to(results) or results.is_relative_to(place):
            raise UserError(
                f"--export-state {target}: the suite's results are in {self._folder}; "
                "name a folder beside it, neither in nor above it"
            )
        foreign = [n for n in visible(target) if n != INDEX and not PARTS.fullmatch(n)]
        if foreign:
            raise UserError(
                f"--export-state {target}: {foreign[0]} is there, which is no part of "
                "a state; name an empty or a new folder"
            )
        index = read_index(target)
        if index is not None and index.suite != self._suite.name:
            raise UserError(
                f"--export-state {target} holds a state of the suite {index.suite!r}, "
                f"and this is {self._suite.name!r}; give each suite a folder of its own"
            )
        if index is not None and not self._is_target(self._source):
            raise UserError(
                f"--export-state {target} holds a state of this suite: add "
                f"--import-state {target}, which goes on from it, or name another "
                "folder"
            )
        try:
            target.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=target):
                pass
        except OSError as error:
            raise UserError(
                f"cannot write to --export-state {target}: "
                f"{error.strerror or error}; name another folder"
            ) from error
        return index

    def _is_target(self, source: Path | None) -> bool:
        return bool(
            source and self._target and source.resolve() == self._target.resolve()
        )

    def _take(self, source: Path) -> None:
        index = read_index(source)
        if index is None:
            self._say(f"state: none in {source} yet, starting afresh")
            return
        check(source, index, self._suite.name)
        taken, notes = take(source, index, self._folder)
        if self._is_target(source):
            self._first = self._known = index
        if index.kdbench != __version__:
            notes.append(
                f"it is of kdbench {index.kdbench}, and this is {__version__}: runs "
                "whose code has changed start again"
            )
        self._say(f"state: {told(taken)} from {source}")
        for note in notes:
            self._say(f"state: {note}")

    def _write(self) -> None:
        """Write the state as it is now, whole or not at all.

        The first signal meanwhile waits for its end, and the second stops it. Raises
        Unwritable, and KeyboardInterrupt.
        """
        if self._target is None:
            return
        with self._stopping.gently():
            try:
                self._put(self._target)
            except KeyboardInterrupt:
                if _read(self._target) == self._known:
                    self._say(f"state: not written, {self._target} stays as it was")
                raise

    def _put(self, target: Path) -> None:
        try:
            target.mkdir(parents=True, exist_ok=True)
            lock = FileLock(target / ".lock").acquire()  # one at a time writes here
        except OSError as error:
            why = error.strerror or str(error)
            raise Unwritable(error.errno, why, str(target)) from error
        with lock:
            there = _read(target)
            if there not in (None, self._known):
                why = "another command has written there since this one began"
                raise Overtaken(errno.EEXIST, why, str(target))
            now, written = write(target, self._suite.name, there, self._files, LIMIT)
        if now.members and now != self._known:
            self._known = now
            self._say(f"state: {written} in {target}")

    def _files(self) -> dict[str, Path]:
        """By its path in the state every file that a resumed run needs.

        Other processes may train on meanwhile: each file is whole, what has finished
        comes with its weights, and all else with its newest whole checkpoint. A
        checkpoint is looked for before the record that takes its place.
        """
        here = Folder(self._folder)
        begun = {p.name.partition(".")[0] for p in here.checkpoints.glob("*.ckpt")}
        newest = {
            run_id: checkpoint.newest(here.checkpoints, run_id) for run_id in begun
        }
        files = {}
        for path in self._folder.glob("*.json"):
            try:
                record = read_record(path)
            except UserError:  # damaged: it is run again
                continue
            if file_name(record) != path.name or _is_skipped(record):
                continue
            files[path.name] = path
            if here.finished(path.stem):
                newest[path.stem] = None
                weights = here.weights(path.stem)
                if weights.is_file():
                    files[f"weights/{weights.name}"] = weights
        for run_id, file in newest.items():
            if file:
                files[f"checkpoints/{run_id}.ckpt"] = file
        files |= self._imported()
        return {
            name: path
            for name, path in files.items()
            if MEMBERS.fullmatch(name) and path.stat().st_size
        }

    def _imported(self) -> dict[str, Path]:
        """The checkpoints from elsewhere that the suite's pairs name."""
        models = set()
        for part in self._suite.parts:
            for name in part.pairs:
                own = self._suite.define_pairs.get(name)
                pair = own.named(name) if own else self._host.get("pairs", name).thing
                models |= {*pair.teachers, *pair.students, *pair.assistants}
        names = {m.removeprefix(f"{PREFIX}:") for m in models if m.startswith(PREFIX)}
        found = {f"{PREFIX}/{name}.safetensors": path_of(name) for name in names}
        return {name: path for name, path in found.items() if path.is_file()}


def _is_skipped(record: object) -> bool:
    """It is made anew by every command."""
    return isinstance(record, Record) and record.status == "skipped"


def _read(target: Path) -> Index | None:
    """The state in the folder. Unwritable where it is damaged: not by this command."""
    try:
        return read_index(target)
    except UserError as error:
        raise Overtaken(errno.EEXIST, str(error), str(target)) from error
