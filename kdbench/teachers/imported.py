"""Checkpoints from elsewhere as models: imported once, measured here, then teachers.

Each lies under its name in the cache, with a card that says where it came from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from kdbench.api import Dataset, Model, Shape, Source, UserError, hookimpl, unknown
from kdbench.cache import cache_dir
from kdbench.data.checks import loaded
from kdbench.engine.feed import Feed
from kdbench.engine.teacher import predict
from kdbench.plugins import Host
from kdbench.provenance import environment, now
from kdbench.records import Recipe
from kdbench.tasks import headline_of
from kdbench.teachers.foreign import KeyMap, matched, read_foreign, read_map, renamed
from kdbench.weights import Card, Imported, read, read_card, shown, state_hash, write

PREFIX = "imported"


@hookimpl
def kdbench_models() -> list[Source]:
    return [
        Source(
            name=PREFIX,
            summary="checkpoints from elsewhere, after 'kdbench teacher import'",
            find=imported_model,
        )
    ]


def imported_model(name: str, host: Host) -> Model:
    """The model of an imported checkpoint: as a teacher it is measured, not trained.

    Raises UserError where none was imported under this name.
    """
    path = path_of(name)
    if not path.is_file():
        known = [p.stem for p in path.parent.glob("*.safetensors")]
        error = unknown("imported checkpoint", name, known, str(path.parent))
        raise UserError(f"{error}; 'kdbench teacher import' adds one")
    card = read_card(path)
    if not isinstance(card, Imported):
        raise UserError(f"{path} is no imported checkpoint")
    value = shown(card.headline, card.value)
    spec = host.model(card.model)
    return dataclasses.replace(
        spec,
        build=partial(_build, spec, card),
        name=f"{PREFIX}:{name}",
        summary=f"{card.model} from {card.file}, {value} on {card.dataset}",
        weights=partial(_weights, path),
        version=card.weights_sha256,
    )


def _build(spec: Model, card: Imported, input_shape: Shape, outputs: int) -> nn.Module:
    """The architecture; ValueError for what its checkpoint was not taken for."""
    known = (tuple(card.input_shape), card.outputs)
    if (tuple(input_shape), outputs) != known:
        raise ValueError(
            f"the checkpoint was imported for {card.dataset}, inputs of {known[0]} and "
            f"{known[1]} outputs, not {tuple(input_shape)} and {outputs}"
        )
    module: nn.Module = spec.build(input_shape, outputs)
    return module


def _weights(path: Path) -> dict[str, Tensor]:
    return read(path)[1]


def path_of(name: str) -> Path:
    """Where an imported checkpoint lies. UserError for what is no file name."""
    if not re.fullmatch(r"[\w+-][\w.+-]*", name):
        raise UserError(f"name {name!r}: use letters, digits and -_.+ only")
    return cache_dir() / "teachers" / PREFIX / f"{name}.safetensors"


def import_checkpoint(
    file: Path,
    host: Host,
    *,
    model: str,
    dataset: str,
    name: str,
    key: str | None = None,
    map_file: Path | None = None,
    data_dir: Path | None = None,
    device: str = "cpu",
    force: bool = False,
) -> Imported:
    """Read, map, measure and keep a state dict from elsewhere; returns its card.

    Raises UserError for whatever does not fit, and then keeps nothing.
    """
    path = path_of(name)
    if path.exists() and not force:
        raise UserError(
            f"a checkpoint named {name!r} was imported already; choose another name, "
            "or replace it with --force"
        )
    spec, data_set = host.model(model), host.dataset(dataset)
    _check_teaches(spec)
    key_map = read_map(map_file) if map_file else KeyMap()
    state = renamed(read_foreign(file, key), key_map, f"map {map_file}")
    module = _built(spec, data_set)
    state = matched(state, module, spec, data_set, file.name)
    module.load_state_dict(state)
    value, items = _measured(module, data_set, data_dir, device)
    card = Imported(
        name=name,
        model=spec.name,
        dataset=data_set.name,
        input_shape=data_set.input_shape,
        outputs=data_set.task.outputs,
        headline=data_set.task.headline,
        value=value,
        test_items=items,
        weights_sha256=state_hash(state),
        file=file.name,
        file_sha256=_file_hash(file),
        key=key or "",
        map=map_file.read_text(encoding="utf-8") if map_file else "",
        environment=environment(device, torch.get_num_threads()),
        imported_at=now(),
    )
    keep(path, state, card)
    return card


def keep(path: Path, state: Mapping[str, Tensor], card: Card) -> None:
    """Write into the cache. UserError where that cannot be done."""
    try:
        write(path, state, card)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error}\n  name another folder with "
            "KDBENCH_CACHE"
        ) from error


def _check_teaches(spec: Model) -> None:
    if spec.weights is not None:
        raise UserError(
            f"{spec.name} was trained elsewhere itself: name its architecture"
        )
    if spec.learner == "fitted":
        raise UserError(
            f"{spec.name} is fitted without gradients: it has no state dict"
        )
    if spec.deploy is not None:
        raise UserError(
            f"{spec.name} is deployed as another network, and cannot teach as one"
        )


def _built(spec: Model, dataset: Dataset) -> nn.Module:
    try:
        return dataset.build(spec)
    except Exception as error:
        raise UserError(
            f"model {spec.name!r} cannot take {dataset.name!r}, inputs "
            f"{dataset.input_shape}: {error}"
        ) from error


def _measured(
    module: nn.Module, dataset: Dataset, data_dir: Path | None, device: str
) -> tuple[float, int]:
    """Headline on the whole test set by kdbench's own preprocessing, and its items."""
    data = loaded(dataset, data_dir, False)
    feed = Feed(data, dataset.task, Recipe(), 0, torch.device(device))
    outputs = predict(module.to(device), feed)
    return headline_of(dataset.task, outputs, feed.test_targets), len(outputs)


def _file_hash(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
