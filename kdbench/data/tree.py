"""Class-per-folder image trees, and Tiny-ImageNet's own layout of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from kdbench.api import UserError
from kdbench.data.images import Encoded, Found, Part

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
TESTS = ("test", "val", "validation", "valid")
ANNOTATIONS = "val_annotations.txt"
LABEL = "label"

Items = list[tuple[Path, int]]
"""Image files and their class indices."""


def find(root: Path, tests: Sequence[str] = TESTS) -> Found | None:
    """A folder with train/CLASS/image and one of `tests`; None where it has not both.

    Classes are the names of train's folders, sorted; images may lie deeper in them.
    Raises UserError where one has no images, or the test set has a class of its own.
    """
    test = next((name for name in tests if (root / name).is_dir()), None)
    if test is None or not classes(root):
        return None
    items = {"train": _items(root, "train"), "test": _items(root, test)}
    annotations = root / test / ANNOTATIONS
    extra = (annotations,) if annotations.is_file() else ()
    return Found(
        root=root,
        files=(*(path for part in items.values() for path, _ in part), *extra),
        read=lambda: {split: _part(part) for split, part in items.items()},
        options={"test": test},
    )


def classes(root: Path) -> list[str]:
    """Names of the folders in `root/train`, sorted: the label is the place here."""
    train = root / "train"
    if not train.is_dir():
        return []
    return sorted(
        inner.name
        for inner in train.iterdir()
        if inner.is_dir() and not inner.name.startswith(".")
    )


def _items(root: Path, split: str) -> Items:
    known = {name: number for number, name in enumerate(classes(root))}
    folder = root / split
    if (folder / ANNOTATIONS).is_file():
        return _annotated(folder, known)
    found: Items = []
    for inner in sorted(folder.iterdir()):
        if not inner.is_dir() or inner.name.startswith("."):
            continue
        if inner.name not in known:
            raise UserError(f"{inner}: no class of this name in {root / 'train'}")
        images = _images(inner)
        if not images and split == "train":
            raise UserError(f"{inner}: the class has no images; remove or fill it")
        found += [(path, known[inner.name]) for path in images]
    return found


def _images(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _annotated(folder: Path, known: Mapping[str, int]) -> Items:
    """Tiny-ImageNet's val: all images in one folder, lines of "name<TAB>class<TAB>"."""
    found: Items = []
    notes = folder / ANNOTATIONS
    for number, line in enumerate(notes.read_text("utf-8").splitlines(), start=1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        path = folder / "images" / name
        if wnid not in known:
            raise UserError(f"{notes}, line {number}: {wnid!r} is no class of train")
        if not path.is_file():
            raise UserError(f"{notes}, line {number}: there is no {path}")
        found.append((path, known[wnid]))
    return found


def _part(items: Items) -> Part:
    def encoded() -> Iterator[Encoded]:
        for path, _ in items:
            yield Encoded(str(path), path)

    return Part(
        labels={LABEL: np.array([label for _, label in items], np.int64)},
        places=tuple(str(path) for path, _ in items),
        encoded=encoded,
    )
