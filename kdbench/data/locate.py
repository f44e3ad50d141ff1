"""Where a known image set lies in a data folder: torchvision's layout or parquet."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.api import UserError
from kdbench.data import image_parquet
from kdbench.data.images import Form, Found
from kdbench.vision import torchvision

SEARCH_DEPTH = 2
"""Folders below the data folder in which a set's own is looked for."""


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """What is known of a set before it is read.

    `items` are those of train and test. `layout` finds the files that torchvision (or
    the set's authors) lay out as in `expected`; `fetch` is torchvision's class and its
    arguments for each split. `folders` are names of the set's own folder, without
    punctuation; `label` is the label column where a parquet file has several; `tests`
    are the splits to test on, in order of preference, and `configuration` the folder of
    the hub's where it has several. `labels` are the names of the classes.
    """

    name: str
    summary: str
    source: str
    classes: int
    items: tuple[int, int]
    form: Form
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: Callable[[Path], Found | None]
    expected: str
    folders: tuple[str, ...]
    fetch: tuple[str, tuple[Mapping[str, Any], ...]] | None = None
    label: str = "label"
    tests: tuple[str, ...] = ("test", "validation")
    configuration: str = ""
    labels: tuple[str, ...] = ()


def locate(known: ImageSet, data_dir: Path | None, download: bool) -> Found:
    """Where the set lies in the data folder; fetched if it is not there and may be.

    Raises UserError where it is neither there nor to be had.
    """
    if data_dir is None:
        raise UserError(
            f"dataset {known.name!r} needs files: name their folder with --data-dir "
            f"DIR or KDBENCH_DATA\n  (the one that holds {known.expected}),\n"
            f"  {_fetching(known)}"
        )
    found = _search(known, data_dir)
    if (found is None or found.missing) and download and known.fetch:
        _fetch(known, data_dir)
        found = _search(known, data_dir)
    if found is None:
        cannot = "; --download cannot fetch it" if download else ""
        raise UserError(
            f"dataset {known.name!r} not found in {data_dir}{cannot}\n  expected "
            f"torchvision's layout, {data_dir}/{known.expected},\n  or a Hugging Face "
            f"parquet export, such as {data_dir}/{known.folders[0]}/train-*.parquet;\n"
            f"  {_fetching(known)}"
        )
    if found.missing:
        names = ", ".join(str(file) for file in found.missing)
        raise UserError(
            f"dataset {known.name!r} in {found.root} is not whole: there is no {names}"
            f"\n  {_fetching(known)}"
        )
    return found


def _fetching(known: ImageSet) -> str:
    if known.fetch:
        return "and add --download to fetch it where there is a network"
    return "it has to be fetched by hand"


def _fetch(known: ImageSet, data_dir: Path) -> None:
    assert known.fetch is not None  # noqa: S101 - the caller checked
    name, calls = known.fetch
    try:
        for arguments in calls:
            getattr(torchvision("datasets"), name)(data_dir, download=True, **arguments)
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        raise UserError(
            f"dataset {known.name!r} could not be downloaded to {data_dir}: {error}\n"
            "  expected torchvision's layout there in the end, "
            f"{data_dir}/{known.expected}; try again, or fetch it by hand"
        ) from error


def _search(known: ImageSet, data_dir: Path) -> Found | None:
    """The first of: the layout in the data folder or the set's own; parquet files."""
    own = list(_own_folders(known, data_dir, SEARCH_DEPTH))
    partly = None
    for root in (data_dir, *own):
        found = known.layout(root)
        if found and not found.missing:
            return found
        partly = partly or found
    for folder in own:
        tables = image_parquet.find(folder, known.tests, known.configuration)
        if tables:
            return tables
    return partly


def _own_folders(known: ImageSet, folder: Path, depth: int) -> Iterator[Path]:
    """Folders of one of the set's names, such as cifar-100 or uoft-cs___cifar100."""
    name = re.split("___|--", folder.name)[-1]
    if re.sub(r"[\W_]", "", name).lower() in known.folders:
        yield folder
    if depth and folder.is_dir() and os.access(folder, os.R_OK | os.X_OK):
        for inner in sorted(folder.iterdir()):
            if inner.is_dir():
                yield from _own_folders(known, inner, depth - 1)
