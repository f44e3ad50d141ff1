"""Image sets in parquet files, as the Hugging Face hub exports them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdbench.api import UserError
from kdbench.data import parquet
from kdbench.data.images import NO_LABEL, Encoded, Found, Labels, Part

SPLIT = re.compile(r"(train|test|validation|valid|val)(?![a-z])", re.IGNORECASE)
WORDS = {"valid": "validation", "val": "validation"}
DEPTH = 5
"""Folders below a set's own: the hub's cache nests snapshots and configurations."""
READ_ROWS = 256

Files = Mapping[str, list[Path]]


def find(
    root: Path,
    tests: Sequence[str] = ("test", "validation"),
    configuration: str = "",
) -> Found | None:
    """The parquet files of a folder and those below it; None where there are none.

    A file's split is told by its name (train-00000-of-00001.parquet) or its folder's
    (train/0000.parquet). The test set is the first of `tests` that is there. Of several
    sets the one in a folder named `configuration` is taken. Raises UserError where a
    split is missing, or there are several sets.
    """
    sets = _sets(root)
    if not sets:
        return None
    named = {folder: s for folder, s in sets.items() if folder.name == configuration}
    sets = named or sets
    if len(sets) > 1:
        names = ", ".join(sorted(str(folder) for folder in sets))
        raise UserError(
            f"{root} holds several sets of parquet files: {names}\n"
            "  keep one of them there, or name its folder"
        )
    [(folder, splits)] = sets.items()
    test = next((split for split in tests if splits.get(split)), None)
    if not splits.get("train") or test is None:
        has = ", ".join(sorted(splits))
        wanted = " or ".join(f"{split}-*.parquet" for split in tests)
        raise UserError(f"{folder}: needs train-*.parquet and {wanted}; it has {has}")
    files = {"train": splits["train"], "test": splits[test]}
    return Found(
        root=root,
        files=(*files["train"], *files["test"]),
        read=lambda: {split: _part(root, paths) for split, paths in files.items()},
        options={"test": test},
    )


def _sets(root: Path) -> dict[Path, dict[str, list[Path]]]:
    """Folder of a set -> split -> its files in order."""
    sets: dict[Path, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(_below(root, DEPTH)):
        own, above = SPLIT.match(path.name), SPLIT.fullmatch(path.parent.name)
        if own or above:
            word = (own or above)[1].lower()  # type: ignore[index]
            folder = path.parent if own else path.parent.parent
            sets[folder][WORDS.get(word, word)].append(path)
    return sets


def _below(folder: Path, depth: int) -> Iterator[Path]:
    yield from folder.glob("*.parquet")
    if depth:
        for inner in folder.iterdir():
            if inner.is_dir():
                yield from _below(inner, depth - 1)


def _part(root: Path, paths: Sequence[Path]) -> Part:
    """The rows of these files: labels of every integer column, images to be read."""
    shards, labels = [], defaultdict(list)
    images = {}
    for path in paths:
        file = parquet.opened(path)
        schema = file.schema_arrow
        images[path] = parquet.one_column(path, schema, "image")
        shards.append((path.relative_to(root).as_posix(), file.metadata.num_rows))
        names = parquet.columns(schema, "integer")
        table = parquet.read(path, names)
        for name in names:
            labels[name].append(_integers(table[name]))
    whole = {k: np.concatenate(v) for k, v in labels.items() if len(v) == len(paths)}
    return Part(labels=whole, shards=tuple(shards), encoded=lambda: _encoded(images))


def _integers(column: Any) -> Labels:
    values: Labels = column.fill_null(0).to_numpy().astype(np.int64)
    values[column.is_null().to_numpy()] = NO_LABEL
    return values


def _encoded(images: Mapping[Path, str]) -> Iterator[Encoded]:
    import pyarrow as pa

    for path, column in images.items():
        row = 0
        try:
            for batch in parquet.opened(path).iter_batches(READ_ROWS, columns=[column]):
                values = batch.column(0)
                if pa.types.is_struct(values.type):
                    values = values.field("bytes")
                for value in values:
                    where = f"{path}, row {row}"
                    data = value.as_py()
                    if not data:
                        raise UserError(f"{where}: there are no image bytes")
                    yield Encoded(where, data)
                    row += 1
        except (OSError, pa.ArrowException) as error:
            raise parquet.unreadable(path, error) from error
