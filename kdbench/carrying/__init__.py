"""A run that goes on elsewhere: its state in files, written and taken over.

The state is what a suite's folder holds of its runs: records, the weights of finished
students and teachers, a checkpoint of each run that is under way; and the checkpoints
from elsewhere that its pairs name. Reports, traces, locks, decoded data and the cache
of teachers follow from it, or are no part of it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from kdbench import __version__
from kdbench.api import UserError
from kdbench.atomic import Unwritable
from kdbench.carrying.packing import write
from kdbench.carrying.state import INDEX, LIMIT, PARTS, check, read_index, visible
from kdbench.carrying.taking import Folder, take, told
from kdbench.claims import LOCKS, make_writable
from kdbench.config import Suite
from kdbench.engine import checkpoint
from kdbench.engine.faults import DeviceLost
from kdbench.plugins import Host
from kdbench.store import read_record
from kdbench.teachers.imported import PREFIX, path_of


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
        say: Callable[[str], None],
    ):
        self._host = host
        self._suite = suite
        self._folder = folder
        self._source = source
        self._target = target
        self._say = say

    @contextmanager
    def around(self) -> Iterator[None]:
        """Take the state over, and write it when training has ended.

        Whether it is done, was stopped, or the machine failed. Raises UserError before
        anything is changed, and Unwritable.
        """
        if self._target is not None:
            self._check_target(self._target)
        if self._source is not None:
            self._take(self._source)
        try:
            yield
        except (KeyboardInterrupt, DeviceLost, Unwritable):
            self.write()
            raise
        self.write()

    def _check_target(self, target: Path) -> None:
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
        if index is not None and not self._takes_over(target):
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

    def _takes_over(self, target: Path) -> bool:
        return self._source is not None and self._source.resolve() == target.resolve()

    def _take(self, source: Path) -> None:
        index = read_index(source)
        if index is None:
            self._say(f"state: none in {source} yet, starting afresh")
            return
        check(source, index, self._suite.name)
        make_writable(self._folder)
        with self._alone():
            taken, notes = take(source, index, self._folder)
        if index.kdbench != __version__:
            notes.append(
                f"it is of kdbench {index.kdbench}, and this is {__version__}: runs "
                "whose code has changed start again"
            )
        self._say(f"state: {told(taken)} from {source}")
        for note in notes:
            self._say(f"state: {note}")

    def write(self) -> None:
        """Write the state as it is now, whole or not at all. Raises Unwritable."""
        if self._target is None:
            return
        with self._alone():
            try:
                old = read_index(self._target)
            except UserError:  # damaged since; it is written anew
                old = None
            now, written = write(
                self._target, self._suite.name, old, self._files, LIMIT
            )
        if now == old:
            self._say(f"state: {self._target} stays as it was, nothing is further")
        else:
            self._say(f"state: {written} in {self._target}")

    def _alone(self) -> FileLock:
        """No other process of this suite writes or takes over a state meanwhile."""
        (self._folder / LOCKS).mkdir(parents=True, exist_ok=True)
        return FileLock(self._folder / LOCKS / "state.lock")

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
                read_record(path)
            except UserError:  # damaged: it is run again
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
        return files | self._imported()

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
