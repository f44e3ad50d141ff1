"""Decoded images and one of their label columns -> the tensors of a dataset."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from kdbench.api import Split, UserError, unknown
from kdbench.data.decoded import Decoded
from kdbench.data.images import Labels, Pixels, check_labels


def splits(
    images: Decoded, label: str, classes: int, root: Path
) -> tuple[Split, Split]:
    """Training and test set, labelled by the column of this name, or the only one.

    Raises UserError where there is no such column, and for a label that is missing or
    not in 0..classes-1, by file and row.
    """
    return tuple(  # type: ignore[return-value]
        _split(images, part, label, classes, root) for part in ("train", "test")
    )


def _split(images: Decoded, part: str, label: str, classes: int, root: Path) -> Split:
    own = images.splits[part]
    labels = column(own.labels, label, f"{root}, {part}")
    check_labels(labels, classes, own.shards, root)
    return Split(inputs=_tensor(own.pixels), targets=torch.from_numpy(labels))


def column(labels: Mapping[str, Labels], name: str, where: str) -> Labels:
    """The labels of this column.

    Where it is "label", or no name, the only one there is will do; of another name one
    that is called "label".
    """
    if name in labels:
        return labels[name]
    if len(labels) == 1 and (name in ("", "label") or "label" in labels):
        return next(iter(labels.values()))
    if not labels:
        raise UserError(f"{where}: there is no column of integer labels")
    if not name:
        raise UserError(
            f"{where}: there are several columns of integer labels: "
            f"{', '.join(sorted(labels))}; choose one"
        )
    raise unknown("label column", name, labels, where)


def _tensor(pixels: Pixels) -> Tensor:
    """A tensor over the mapped file; nobody writes to a training set."""
    with warnings.catch_warnings():  # of a set that could only be mapped read-only
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(pixels)
