"""Teachers passed on: looked through, written to one file, and taken from one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kdbench.api import Pair, UserError
from kdbench.config import Suite, read_suite
from kdbench.plugins import Host, code_of
from kdbench.recording import weights_path
from kdbench.records import ENGINE, PROTOCOL, Run
from kdbench.store import load
from kdbench.teachers.imported import PREFIX, keep, path_of
from kdbench.teachers.store import place, store_folder, title_of
from kdbench.weights import (
    Card,
    Imported,
    Trained,
    read,
    read_card,
    read_state,
    state_hash,
    write,
)


@dataclass(frozen=True)
class Entry:
    """A teacher and where it lies; `damage` says why it has no card."""

    path: Path
    card: Card | None
    damage: str = ""

    @property
    def names(self) -> set[str]:
        """What it may be called by, beside the beginning of its id."""
        if self.card is None:
            return set()
        if isinstance(self.card, Imported):
            return {f"{PREFIX}:{self.card.name}"}
        run = self.card.record.run
        [model] = run.students
        words = {model, f"{run.dataset}/{model}", run.id}
        return words | {self.path.stem} | {f"{word}#{run.seed}" for word in words}


def entries(folder: Path | None = None) -> list[Entry]:
    """Every teacher of the store, or of a folder of results."""
    if folder is not None:
        return list(_of_results(folder))
    here = store_folder()
    paths = [*here.glob("*.safetensors"), *here.glob(f"{PREFIX}/*.safetensors")]
    return [_entry(path) for path in sorted(paths)]


def _entry(path: Path) -> Entry:
    try:
        return Entry(path, read_card(path))
    except UserError as error:
        return Entry(path, None, str(error))


def _of_results(folder: Path) -> Iterator[Entry]:
    for record in load([folder]).records:
        if record.run.is_teacher and record.status == "finished":
            yield Entry(weights_path(folder, record.id), Trained(record=record))


def find(known: Sequence[Entry], text: str, where: str) -> Entry:
    """The one teacher called so: by its id, MODEL, DATASET/MODEL, or MODEL#SEED.

    Of an id the beginning is enough. Raises UserError where there is none, or several.
    """
    there = [entry for entry in known if entry.card]
    found = [e for e in there if text in e.names]
    if not found:
        found = [
            e
            for e in there
            if isinstance(e.card, Trained) and e.card.record.id.startswith(text)
        ]
    if not found:
        options = sorted({min(e.names, key=len) for e in there})
        raise UserError(
            f"no teacher {text!r} in {where}; there are: {', '.join(options) or 'none'}"
        )
    if len(found) > 1:
        raise UserError(
            f"{text!r} names {len(found)} teachers in {where}: "
            f"{', '.join(_described(e) for e in found)}; say which by its id"
        )
    return found[0]


def _described(entry: Entry) -> str:
    if not isinstance(entry.card, Trained):
        return entry.path.stem
    run = entry.card.record.run
    return (
        f"{entry.path.stem} ({run.dataset}/{title_of(run)}, {run.recipe.epochs} epochs)"
    )


def export(entry: Entry, file: Path, *, force: bool = False) -> Card:
    """Write a teacher and its card into one file. UserError where it is damaged."""
    if file.suffix != ".safetensors":
        raise UserError(f"{file}: the file's name must end in .safetensors")
    if file.exists() and not force:
        raise UserError(f"{file} is there already; replace it with --force")
    card = entry.card
    assert card is not None  # noqa: S101 - find() gives no damaged one
    state = read_state(entry.path)
    if state_hash(state) != card.weights_sha256:
        raise UserError(f"{entry.path} is damaged: its weights are not those recorded")
    try:
        write(file, state, card)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from error
    return card


def import_file(file: Path, *, force: bool = False) -> tuple[Card, Path]:
    """Put a file that `export` wrote into the store: its card and its place.

    Raises UserError where it is damaged, no teacher's, or where the store has other
    weights under its name.
    """
    card, state = read(file)
    if isinstance(card, Imported):
        path = path_of(card.name)
    elif card.record.run.is_teacher and card.record.status == "finished":
        path = place(card.record.id, card.data)
    else:
        raise UserError(f"{file} holds no teacher that finished, but a student")
    if path.exists() and not force:
        known = _entry(path).card
        if known is not None and known.weights_sha256 != card.weights_sha256:
            raise UserError(
                f"the cache has this teacher with other weights ({path.name}, sha256 "
                f"{known.weights_sha256[:12]}, not {card.weights_sha256[:12]}); "
                "replace it with --force"
            )
    keep(path, state, card)
    return card, path


def why_unused(run: Run, host: Host) -> list[str]:
    """What keeps this teacher from arising with this version's code; empty: nothing."""
    reasons = []
    if (run.engine, run.protocol) != (ENGINE, PROTOCOL):
        reasons.append(
            f"engine {run.engine} and protocol {run.protocol}, here {ENGINE} and "
            f"{PROTOCOL}"
        )
    things: Mapping[str, tuple[str, str]] = {
        "strategy": ("strategies", "scratch"),
        f"dataset {run.dataset}": ("datasets", run.dataset),
        f"model {run.students[0]}": ("models", run.students[0]),
    }
    for key, (kind, name) in things.items():
        try:
            code = code_of(host.get(kind, name).thing)
        except UserError as error:
            reasons.append(str(error))
            continue
        if run.code.get(key) != code:
            reasons.append(f"other code of {key}")
    return reasons


def suites_using(run: Run, host: Host) -> list[str]:
    """The suites whose grid has this teacher."""
    [model] = run.students
    found = []
    for offer in host.all("suites"):
        with suppress(UserError):  # a suite that needs what is not installed
            for part in read_suite(offer.thing.path).parts:
                same = run.recipe == part.recipe.of(model)
                if (
                    same
                    and run.dataset in part.datasets
                    and _teaches(model, part, host)
                ):
                    found.append(offer.thing.name)
    return list(dict.fromkeys(found))


def _teaches(model: str, part: Suite, host: Host) -> bool:
    for name in part.pairs:
        own = part.define_pairs.get(name)
        pair: Pair = own.named(name) if own else host.get("pairs", name).thing
        if model in pair.teachers:
            return True
    return False
