"""Image sets on disk before they are decoded: where they lie and what they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdbench.api import Shape, UserError

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]

NO_LABEL = np.iinfo(np.int64).min
"""Stands for a label that is missing in its file."""


class Encoded(NamedTuple):
    """One image as its file holds it; `place` names the file, and the row in it."""

    place: str
    data: bytes | Path


@dataclass(frozen=True, kw_only=True)
class Form:
    """What every image of a set becomes: uint8 of `shape`, (channels, height, width).

    `resized`: the shorter side is brought to the shape's and the centre cut out, else
    another size is an error. `converted`: images of another mode (grey, palette, CMYK)
    become RGB and are counted, else they are an error.
    """

    shape: Shape
    resized: bool = False
    converted: bool = False

    @property
    def mode(self) -> str:
        """PIL's name for images of this many channels."""
        return "L" if self.shape[0] == 1 else "RGB"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split, not decoded yet: its labels by column, (N,) each, and its images.

    These are `pixels`, (N, C, H, W), or are to be decoded from `encoded()`. `shards`
    are the files that hold several images, relative to the set's folder, with how many;
    `places` instead name the files of one image each.
    """

    labels: Mapping[str, Labels]
    pixels: Pixels | None = None
    encoded: Callable[[], Iterator[Encoded]] | None = None
    shards: tuple[tuple[str, int], ...] = ()
    places: tuple[str, ...] = ()

    @property
    def items(self) -> int:
        return sum(items for _, items in self.shards) or len(self.places)

    def where(self, row: int) -> str:
        """The file of this image, and its row there."""
        return self.places[row] if self.places else place(self.shards, row)


@dataclass(frozen=True, kw_only=True)
class Found:
    """An image set in `root`: its files, and `read()`, which gives "train" and "test".

    The files' names, sizes and times tell whether it is still the same set; `options`
    are what else its decoded images depend on. `missing` are files it should have.
    """

    root: Path
    files: tuple[Path, ...]
    read: Callable[[], Mapping[str, Part]]
    options: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[Path, ...] = ()


def place(shards: tuple[tuple[str, int], ...], row: int) -> str:
    """Such as "train-00001-of-00002.parquet, row 17": rows count from 0 in a file."""
    for name, items in shards:
        if row < items:
            return f"{name}, row {row}"
        row -= items
    raise IndexError(row)


def check_items(
    parts: Mapping[str, Part], wanted: Mapping[str, int], root: Path
) -> None:
    """UserError where a split is empty, or has another number of images than wanted.

    `wanted` is by split, 0 for any number.
    """
    for split, part in parts.items():
        for column, labels in part.labels.items():
            if len(labels) != part.items:
                raise UserError(
                    f"{root}, {split}: {part.items} images and {len(labels)} labels "
                    f"({column}); fetch the files again"
                )
        if not part.items:
            raise UserError(f"{root}, {split}: there are no images")
        if wanted.get(split, 0) not in (0, part.items):
            raise UserError(
                f"{root}, {split}: {part.items:,} images instead of "
                f"{wanted[split]:,}; fetch the files again"
            )


def check_labels(
    labels: Labels, classes: int, shards: tuple[tuple[str, int], ...], root: Path
) -> None:
    """UserError, with file and row, where a label is missing or out of 0..classes-1."""
    wrong = (labels < 0) | (labels >= classes)
    if not wrong.any():
        return
    row = int(wrong.argmax())
    where = root / place(shards, row) if shards else f"{root}, row {row}"
    if labels[row] == NO_LABEL:
        raise UserError(f"{where}: the label is missing")
    raise UserError(
        f"{where}: label {labels[row]} is not in 0..{classes - 1} "
        f"({int(wrong.sum())} such rows)"
    )
