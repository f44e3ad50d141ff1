"""Labelled texts from parquet and from tab-separated files; mistakes name the place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdbench import UserError
from kdbench.data import parquet

UNLABELLED = -1
"""The label of GLUE's test items in the hub's exports."""


@dataclass(frozen=True)
class Texts:
    """`texts` and their (N,) `labels`, with the `places` ("FILE, row 3") they are from.

    Labels are class indices, or all UNLABELLED.
    """

    texts: list[str]
    labels: NDArray[np.int64]
    places: list[str]

    @property
    def labelled(self) -> bool:
        return bool((self.labels != UNLABELLED).any())

    def no_empty_ones(self) -> None:
        """Raise UserError naming the first text that has nothing to learn from."""
        for text, place in zip(self.texts, self.places, strict=True):
            if not text.strip():
                raise UserError(
                    f"{place}: an empty text in the training split; remove the row, or "
                    "fetch the file again"
                )


def read_parquet(paths: Sequence[Path], classes: int) -> Texts:
    """The rows of these parquet files, in order.

    Each has one column of texts and one of labels, found by type; "sentence" and
    "label" where there are several. Raises UserError for anything else.
    """
    return _joined(
        [_checked(*_columns(path), path, "row", 1, classes) for path in paths]
    )


def _columns(path: Path) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    table = parquet.read(path)
    texts = parquet.one_column(path, table.schema, "text", "sentence")
    labels = parquet.one_column(path, table.schema, "integer", "label")
    return table[texts], table[labels]


def read_tsv(path: Path, classes: int) -> Texts:
    """GLUE's own layout: a line "sentence<TAB>label", then a text and a label each.

    There is no quoting. Raises UserError naming the line for anything else.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    rows = [line.rstrip("\r").split("\t") for line in lines]
    if rows[0] != ["sentence", "label"]:
        raise UserError(
            f"{path}: the first line must be 'sentence<TAB>label', not {lines[0]!r}"
        )
    rows = rows[1:-1] if rows[-1] == [""] else rows[1:]
    for number, row in enumerate(rows, start=2):
        if len(row) != 2 or not row[1].strip().lstrip("-").isdecimal():
            raise UserError(
                f"{path}, line {number}: not 'text<TAB>label' with a whole number as "
                f"label: {'<TAB>'.join(row)[:80]!r}"
            )
    texts = pa.chunked_array([[row[0].strip() for row in rows]], type=pa.string())
    labels = pa.chunked_array([[int(row[1]) for row in rows]], type=pa.int64())
    return _checked(texts, labels, path, "line", 2, classes)


def _checked(
    texts: pa.ChunkedArray,
    labels: pa.ChunkedArray,
    path: Path,
    unit: str,
    first: int,
    classes: int,
) -> Texts:
    """The rows as they are, or UserError naming the first that cannot be used."""
    if not len(texts):
        raise UserError(f"{path} has no rows; fetch the file again")
    places = [f"{path}, {unit} {first + row}" for row in range(len(texts))]
    for column, kind in ((texts, "text"), (labels, "label")):
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise UserError(f"{places[row]}: the {kind} is missing")
    found = labels.to_numpy().astype(np.int64)
    wrong = (found < 0) | (found >= classes)
    if wrong.any() and not (found == UNLABELLED).all():
        row = int(wrong.argmax())
        raise UserError(
            f"{places[row]}: label {found[row]} is none of 0 to {classes - 1}"
        )
    return Texts(texts.to_pylist(), found, places)


def _joined(parts: Sequence[Texts]) -> Texts:
    return Texts(
        texts=[text for part in parts for text in part.texts],
        labels=np.concatenate([part.labels for part in parts]),
        places=[place for part in parts for place in part.places],
    )
