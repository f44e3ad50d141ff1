"""Teachers that are trained once and shared: a store of them in the cache.

A teacher is found again by its run (recipe, model, seed and code are in its id) and the
hash of its data. Each lies in one file: its weights, with its record in the header.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from kdbench.api import Data, UserError
from kdbench.cache import cache_dir
from kdbench.data.checks import loaded
from kdbench.plugins import Host
from kdbench.recording import weights_path
from kdbench.records import Record, Run
from kdbench.store import read_record, write_record
from kdbench.teachers.imported import PREFIX, path_of
from kdbench.weights import (
    Imported,
    Trained,
    drift,
    read,
    read_card,
    read_state,
    shown,
    state_hash,
    write,
)

HASHED_BYTES = 2**31
"""Of a larger tensor every k-th item is hashed, about this many bytes in all."""


def store_folder() -> Path:
    return cache_dir() / "teachers"


def data_hash(data: Data) -> str:
    """sha256 over a dataset's tensors; of very large ones, over evenly spaced items.

    Not over mean and std, which follow from them and whose last digits do not.
    """
    total = hashlib.sha256()
    for split in (data.train, data.test):
        for tensor in (split.inputs, split.targets):
            total.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            total.update(_bytes(tensor))
    return total.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    every = -(-tensor.numel() * tensor.element_size() // HASHED_BYTES) or 1
    part = tensor[::every].contiguous().view(-1).view(torch.uint8)
    return part.numpy().data


def title_of(run: Run) -> str:
    return f"{run.students[0]} #{run.seed}"


def deposit(
    folder: Path, record: Record, data: str, *, replace: bool = False
) -> str | None:
    """Put a finished teacher of a results folder into the store; a note, or None.

    `data` is the hash of what it was trained on. One that is there stays, unless
    `replace`; the note says where it has other weights.
    """
    path = place(record.id, data)
    if path.exists() and not replace:
        return _other_weights(path, record)
    state = read_state(weights_path(folder, record.id))
    if state_hash(state) != record.weights_sha256:
        raise UserError(f"{weights_path(folder, record.id)} is damaged")
    write(path, state, Trained(record=record, data=data))
    return None


def _other_weights(path: Path, record: Record) -> str | None:
    with suppress(UserError):  # a damaged one is found out when it is wanted
        known = read_card(path).weights_sha256
        if known != record.weights_sha256:
            return (
                f"teacher {title_of(record.run)} has other weights here than in the "
                f"cache (sha256 {(record.weights_sha256 or '')[:12]} and {known[:12]}):"
                " the students of each are comparable among themselves"
            )
    return None


def adopt(folder: Path, run_id: str, data: str) -> tuple[Record | None, str | None]:
    """Copy a teacher of the store into a results folder: its record, and a note.

    No record where there is none, where the folder's students had another teacher, and
    where it is damaged: then it is set aside, and the note says so.
    """
    path = next((p for p in _places(run_id, data) if p.is_file()), None)
    if path is None:
        return None, _for_other_data(run_id)
    try:
        card, state = read(path)
        if not isinstance(card, Trained) or card.record.id != run_id:
            raise UserError(f"{path} is damaged: it holds another teacher")
    except UserError as error:
        return None, f"{error}; {_set_aside(path)}, and the teacher is trained again"
    record = card.record
    known = _recorded_weights(folder, run_id)
    if known not in (None, record.weights_sha256):
        return None, (
            f"teacher {title_of(record.run)} is trained again: the one in the cache "
            f"({path.name}) has other weights than the one that taught in {folder}"
        )
    write(weights_path(folder, run_id), state)
    write_record(folder, record)
    value = shown(record.headline, record.measures.get(record.headline.name))
    return record, (
        f"teacher {title_of(record.run)} taken from the cache ({value}, trained "
        f"{record.finished_at[:10]}, sha256 {card.weights_sha256[:12]})"
    )


def _for_other_data(run_id: str) -> str | None:
    for path in kept(run_id):
        with suppress(UserError):
            card = read_card(path)
            if isinstance(card, Trained):
                return (
                    f"teacher {title_of(card.record.run)} is trained here: the cache "
                    f"has it for other data under the name {card.record.run.dataset}"
                )
    return None


def _set_aside(path: Path) -> str:
    aside = path.with_suffix(".damaged")
    try:
        path.replace(aside)
    except OSError as error:
        return f"it cannot be set aside ({error.strerror})"
    return f"set aside as {aside.name}"


def _recorded_weights(folder: Path, run_id: str) -> str | None:
    """The hash of the weights that the folder's own record of this teacher names."""
    with suppress(UserError):
        known = read_record(folder / f"{run_id}.json")
        if isinstance(known, Record):
            return known.weights_sha256
    return None


def place(run_id: str, data: str) -> Path:
    """Where the store keeps a teacher of these data; of unknown ones, without data."""
    words = [run_id, *([data[:12]] if data else [])]
    return store_folder() / f"{'-'.join(words)}.safetensors"


def _places(run_id: str, data: str) -> tuple[Path, Path]:
    """By its data, or imported without a word on them (it is measured again anyway)."""
    return place(run_id, data), place(run_id, "")


def kept(run_id: str) -> list[Path]:
    """The store's files of this teacher, for whatever data."""
    return sorted(store_folder().glob(f"{run_id}*.safetensors"))


def _is_kept(record: Record) -> bool:
    for path in kept(record.id):
        with suppress(UserError):
            if read_card(path).weights_sha256 == record.weights_sha256:
                return True
    return False


class Shared:
    """The store as one `kdbench run` uses it; what goes wrong with it is only a note.

    With `retrain` nothing is taken from it, and what is trained takes its place.
    """

    def __init__(self, host: Host, folder: Path, data_dir: Path | None, retrain: bool):
        self._host = host
        self._folder = folder
        self._data_dir = data_dir
        self._retrain = retrain
        self._data: dict[str, str] = {}

    def take(self, runs: Iterable[Run]) -> tuple[dict[str, Record], list[str]]:
        """Those of these teachers that the store has, now in the folder, and notes."""
        found: dict[str, Record] = {}
        notes = []
        for run in runs:
            if self._retrain or not self._is_trained(run):
                continue
            if not kept(run.id):
                continue  # the data need not be hashed
            try:
                record, note = adopt(self._folder, run.id, self.data_hash(run.dataset))
            except (OSError, UserError) as error:
                record, note = None, f"the cache of teachers: {error}"
            if record:
                found[run.id] = record
            notes += [note] if note else []
        return found, notes

    def give(self, record: Record) -> list[str]:
        """Keep a teacher that finished, or was there already; notes."""
        run = record.run
        if not run.is_teacher or record.status != "finished":
            return []
        if not self._retrain and _is_kept(record):
            return []  # the data need not be hashed
        try:
            if not self._is_trained(run):
                note = self._measures_otherwise(record)
            else:
                data = self.data_hash(run.dataset)
                note = deposit(self._folder, record, data, replace=self._retrain)
        except (OSError, UserError) as error:
            note = f"teacher {title_of(run)} is not in the cache: {error}"
        return [note] if note else []

    def _is_trained(self, run: Run) -> bool:
        """Whether it is trained here, not loaded as it came from elsewhere."""
        return self._host.model(run.students[0]).weights is None

    def data_hash(self, dataset: str) -> str:
        """That of a dataset by name, loaded once."""
        if dataset not in self._data:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # what is computed on loading, always in one order
            try:
                data = loaded(self._host.dataset(dataset), self._data_dir, False)
            finally:
                torch.set_num_threads(threads)
            self._data[dataset] = data_hash(data)
        return self._data[dataset]

    def _measures_otherwise(self, record: Record) -> str | None:
        """A checkpoint from elsewhere, measured now, beside when it was imported."""
        prefix, _, name = record.run.students[0].partition(":")
        value = record.measures.get(record.headline.name)
        if value is None or prefix != PREFIX:
            return None
        card = read_card(path_of(name))
        if not isinstance(card, Imported) or card.dataset != record.run.dataset:
            return None
        changed = drift(
            card.headline,
            card.value,
            value,
            card.test_items,
            card.environment,
            record.environment,
        )
        return f"teacher {PREFIX}:{name} {changed}" if changed else None
