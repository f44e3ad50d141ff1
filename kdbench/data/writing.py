"""Decoded splits written to .npy files, and what is learned of them in passing."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdbench.api import UserError
from kdbench.data.decode import blocks
from kdbench.data.images import Form, Part, Pixels


def write_pixels(
    folder: Path, parts: Mapping[str, Part], form: Form, title: str
) -> dict[str, Any]:
    """Write `<split>.npy`, (N, C, H, W), of every split; facts for the manifest.

    These are mean and standard deviation of the training pixels, and notes: images
    converted, and test images that are also in the training set.
    """
    from rich.console import Console
    from rich.progress import Progress

    seen: dict[str, list[bytes]] = {}
    levels = np.zeros((form.shape[0], 256), np.int64)
    notes = []
    shown = Progress(
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    )
    with shown:
        for split, part in parts.items():
            bar = shown.add_task(f"decoding {title}, {split}", total=part.items)
            writer = _Writer(levels if split == "train" else None)
            with (folder / f"{split}.npy").open("wb") as file:
                writer.write(file, part, form, lambda n, b=bar: shown.advance(b, n))
            seen[split] = writer.seen
            if writer.converted:
                notes.append(
                    f"{writer.converted:,} of {part.items:,} {split} images were not "
                    f"{form.mode} and were converted"
                )
    mean, std = _moments(levels)
    return {
        "mean": mean,
        "std": std,
        "notes": notes + _overlap(parts, seen),
    }


class _Writer:
    """Writes one split; `seen` are the hashes of its images' pixels, in order."""

    def __init__(self, levels: Any):
        self.levels = levels
        self.seen: list[bytes] = []
        self.converted = 0

    def write(
        self, file: io.BufferedWriter, part: Part, form: Form, done: Callable[..., Any]
    ) -> None:
        header = io.BytesIO()
        shape = (part.items, *form.shape)
        about = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, about)
        file.write(header.getvalue())
        for block in blocks(part, form):
            file.write(block.pixels.data)
            self._note(block.pixels)
            self.converted += block.converted
            done(len(block.pixels))
        if len(self.seen) != part.items:
            raise UserError(
                f"{part.where(0)}: {len(self.seen):,} of {part.items:,} images read; "
                "did the files change?"
            )
        file.flush()
        os.fsync(file.fileno())

    def _note(self, pixels: Pixels) -> None:
        self.seen += [hashlib.blake2b(p.data, digest_size=16).digest() for p in pixels]
        if self.levels is not None:
            for channel, counts in enumerate(self.levels):
                counts += np.bincount(pixels[:, channel].ravel(), minlength=256)


def _moments(levels: Any) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, from (C, 256) counts of levels."""
    share = levels / levels.sum(1, keepdims=True)
    mean = share @ np.arange(256)
    square = share @ np.arange(256) ** 2
    return mean.tolist(), np.sqrt(square - mean**2).tolist()


def _overlap(
    parts: Mapping[str, Part], seen: Mapping[str, Sequence[bytes]]
) -> list[str]:
    """How many test images are training images too, pixel by pixel."""
    known: dict[bytes, int] = {}
    for row, name in enumerate(seen["train"]):
        known.setdefault(name, row)
    rows = [row for row, name in enumerate(seen["test"]) if name in known]
    if not rows:
        return []
    one = parts["test"].where(rows[0])
    other = parts["train"].where(known[seen["test"][rows[0]]])
    return [
        f"{len(rows):,} of {len(seen['test']):,} test images are in the training set "
        f"too, pixel by pixel; the first: {one} = {other}"
    ]


def write_labels(path: Path, part: Part) -> bytes:
    """Write the labels as (columns, N) int64; what was written."""
    rows = np.stack(list(part.labels.values())) if part.labels else np.empty((0, 0))
    file = io.BytesIO()
    np.save(file, rows.astype(np.int64))
    with path.open("wb") as out:
        out.write(file.getvalue())
        out.flush()
        os.fsync(out.fileno())
    return file.getvalue()
