"""Parquet tables of recordings, as the Hugging Face hub exports them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from kdbench import UserError
from kdbench.data import parquet
from kdbench_audio.clips import Clip

SPLITS = {"train": False, "test": True}
"""Prefix of the file's name -> whether its recordings are the test set's."""


def read_tables(folder: Path, classes: int) -> list[Clip]:
    """The recordings of `train*.parquet` and `test*.parquet`; [] if there are none.

    Raises UserError where a split is missing, a file unreadable, a column absent, or a
    row has no audio, a label outside 0..classes-1 or no speaker. Rows count from 0.
    """
    files = {split: sorted(folder.glob(f"{split}*.parquet")) for split in SPLITS}
    if not any(files.values()):
        return []
    for split, found in files.items():
        if not found:
            raise UserError(
                f"{folder} holds no {split}*.parquet beside the other split's; add it"
            )
    return [
        clip
        for split, found in files.items()
        for path in found
        for clip in _clips(path, SPLITS[split], classes)
    ]


def _clips(path: Path, test: bool, classes: int) -> Iterator[Clip]:
    table = parquet.read(path)
    audio, label, speaker = _columns(path, table.schema)
    rows = table.select([audio, label, speaker]).to_pylist()
    for number, row in enumerate(rows):
        where = f"{path}, row {number}"
        sound, digit, voice = row[audio] or {}, row[label], row[speaker]
        name = PurePosixPath(sound.get("path") or "").name
        if not sound.get("bytes"):
            raise UserError(f"{where} ({name or 'no name'}): there are no audio bytes")
        if digit is None or not 0 <= digit < classes:
            raise UserError(f"{where}: label {digit} is not one of 0 to {classes - 1}")
        if not voice:
            raise UserError(f"{where}: the speaker is missing")
        yield Clip(
            name=name,
            where=f"{where} ({name})" if name else where,
            data=sound["bytes"],
            label=digit,
            speaker=voice,
            test=test,
        )


def _columns(path: Path, schema: Any) -> tuple[str, str, str]:
    """Names of the audio, label and speaker columns; the audio is told by its type."""
    sounds = parquet.columns(schema, "encoded")
    if (
        len(sounds) != 1
        or "label" not in parquet.columns(schema, "integer")
        or "speaker" not in parquet.columns(schema, "text")
    ):
        raise UserError(
            f"{path}: expected one column of structs {{bytes, path}}, an integer label "
            f"and a string speaker; it has {parquet.described(schema)}"
        )
    return sounds[0], "label", "speaker"
