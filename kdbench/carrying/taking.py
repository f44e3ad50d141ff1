"""How a state is taken over: laid out beside, checked, and put where it is further."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from kdbench.api import UserError
from kdbench.atomic import write_whole
from kdbench.cache import cache_dir
from kdbench.carrying.state import Index, counted, run_id_of, unpack
from kdbench.claims import LOCKS, locked, make_writable
from kdbench.engine import checkpoint
from kdbench.recording import weights_path
from kdbench.records import Record
from kdbench.store import read_record
from kdbench.teachers.imported import path_of
from kdbench.teachers.store import title_of
from kdbench.weights import read_card, read_state, state_hash

ARRIVING = ".arriving"
RECORD, TEACHER, CHECKPOINT = "finished run", "teacher", "checkpoint"


@dataclass(frozen=True)
class Folder:
    """A suite's folder, or a state that is laid out like one."""

    path: Path

    def record(self, run_id: str) -> Record | None:
        """What can be read of a run; a teacher has finished only with its weights."""
        try:
            found = read_record(self.path / f"{run_id}.json")
        except UserError:
            return None
        return found if isinstance(found, Record) else None

    def finished(self, run_id: str) -> Record | None:
        record = self.record(run_id)
        if record is None or record.status != "finished":
            return None
        if record.run.is_teacher and not self._is_intact(record):
            return None
        return record

    def _is_intact(self, record: Record) -> bool:
        try:
            state = read_state(self.weights(record.id))
        except UserError:
            return False
        return state_hash(state) == record.weights_sha256

    def weights(self, run_id: str) -> Path:
        return weights_path(self.path, run_id)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint(self, run_id: str) -> Path:
        return self.checkpoints / f"{run_id}.ckpt"


def take(source: Path, index: Index, folder: Path) -> tuple[Counter[str], list[str]]:
    """Put what is further in the state than in the folder there: its kinds, and notes.

    The index was checked. Runs that other processes train stay as they are. Raises
    UserError, with nothing changed, where there is not enough room, and where students
    here and there had other teachers.
    """
    _check_room(source, index, folder)
    make_writable(folder)
    with FileLock(folder / LOCKS / "state.lock"):  # else two lay theirs in one place
        return _take(source, index, folder)


def _take(source: Path, index: Index, folder: Path) -> tuple[Counter[str], list[str]]:
    arriving = Folder(folder / ARRIVING)
    shutil.rmtree(arriving.path, ignore_errors=True)  # of one that was killed
    try:
        unpack(source, index, arriving.path)
        ids = sorted({run_id_of(m.path) for m in index.members if _of_run(m.path)})
        _check_teachers(arriving, Folder(folder), ids, source)
        notes = _take_imported(arriving.path)
        _take_rest(arriving.path, folder)
        taken: Counter[str] = Counter()
        left = 0
        for run_id in ids:
            with locked(folder, [run_id]) as ours:
                left += not ours
                if ours:
                    taken.update(_take_run(arriving, Folder(folder), run_id))
        if left:
            what = counted(left, "run")
            notes.append(f"{what} left to another kdbench, which trains it now")
    except OSError as error:
        raise UserError(
            f"the state in {source} cannot be laid out in {folder}: "
            f"{error.strerror or error}; what is there is whole: free some space, or "
            "choose another --out"
        ) from error
    finally:
        shutil.rmtree(arriving.path, ignore_errors=True)
    return taken, notes


def _check_room(source: Path, index: Index, folder: Path) -> None:
    """Raise UserError where the folder, or the cache, has not enough room."""
    imported = sum(m.size for m in index.members if m.path.startswith("imported/"))
    rooms = {folder: sum(index.sizes.values()) + imported}
    if imported:
        rooms[cache_dir()] = imported
    for place, size in rooms.items():
        there = next(p for p in (place, *place.absolute().parents) if p.exists())
        free = shutil.disk_usage(there).free
        if free < size:
            raise UserError(
                f"the state in {source} needs {size / 1e6:.1f} MB in {place}, and "
                f"{free / 1e6:.1f} MB are free there; free some, or choose another "
                "--out (of a cache: KDBENCH_CACHE)"
            )


def _of_run(path: str) -> bool:
    """Not a model's speed, a strategy's card, or a teacher from elsewhere."""
    return "-" not in run_id_of(path) and not path.startswith("imported/")


def _check_teachers(
    there: Folder, here: Folder, ids: Iterable[str], dir_: Path
) -> None:
    """Raise UserError where both have finished a teacher, with other weights.

    Also where those here are lost: students here may have learned from them.
    """
    for run_id in ids:
        known, other = here.record(run_id), there.finished(run_id)
        if not (known and other and known.run.is_teacher):
            continue
        if known.status != "finished":
            continue
        if known.weights_sha256 != other.weights_sha256:
            raise UserError(
                f"teacher {title_of(known.run)} has other weights in {here.path} than "
                f"in the state in {dir_}: students of two teachers are not to be "
                "compared; choose another --out for the state, or leave out "
                "--import-state"
            )


def _take_run(there: Folder, here: Folder, run_id: str) -> list[str]:
    """What is taken of one run: its record with its weights, or its checkpoint."""
    known, other = here.finished(run_id), there.finished(run_id)
    if known and not (other and _is_measured_further(other, known)):
        return []
    if other:
        if there.weights(run_id).is_file():
            _move(there.weights(run_id), here.weights(run_id))
        name = f"{run_id}.json"
        _move(there.path / name, here.path / name)
        checkpoint.discard(here.checkpoints, run_id)
        return [RECORD, TEACHER] if other.run.is_teacher else [RECORD]
    if there.record(run_id) and not here.record(run_id):  # failed, or was skipped
        name = f"{run_id}.json"
        _move(there.path / name, here.path / name)
    if _is_further(there, here, run_id):
        _move(there.checkpoint(run_id), here.checkpoint(run_id))
        return [CHECKPOINT]
    return []


def _is_measured_further(other: Record, known: Record) -> bool:
    """Whether a record of the same weights has all of the other's measures, and more.

    Of students of two trainings the one that is here stays.
    """
    same = other.weights_sha256 == known.weights_sha256
    more = {*other.measures, *other.lists} > {*known.measures, *known.lists}
    return same and more


def _is_further(there: Folder, here: Folder, run_id: str) -> bool:
    if not there.checkpoint(run_id).is_file():
        return False
    known = checkpoint.load(here.checkpoints, run_id)
    if known is None:
        return True
    other = checkpoint.load(there.checkpoints, run_id)
    return other is not None and checkpoint.reached(other) > checkpoint.reached(known)


def _take_imported(arriving: Path) -> list[str]:
    """Into the cache, where there is none of that name; notes."""
    notes = []
    for path in sorted((arriving / "imported").glob("*")):
        place = path_of(path.stem)
        if not place.is_file():
            write_whole(place, path.read_bytes())
        elif read_card(place).weights_sha256 != read_card(path).weights_sha256:
            notes.append(f"imported:{path.stem} has other weights here, and is kept")
    return notes


def _take_rest(arriving: Path, folder: Path) -> None:
    """Speeds and cards that are not here: each says of what, and on which machine."""
    for path in arriving.glob("*-*.json"):
        if not (folder / path.name).exists():
            _move(path, folder / path.name)


def _move(path: Path, to: Path) -> None:
    to.parent.mkdir(exist_ok=True)
    path.replace(to)


def told(taken: Counter[str]) -> str:
    """What was taken over, in words."""
    if not taken:
        return "nothing further than what is here"
    teachers = f" ({counted(taken[TEACHER], TEACHER)})" if taken[TEACHER] else ""
    runs = counted(taken[RECORD], RECORD) + teachers
    return f"{runs} and {counted(taken[CHECKPOINT], CHECKPOINT)} taken over"
