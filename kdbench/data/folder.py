"""`folder:PATH`: any class-per-folder image tree, or a folder of parquet files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from kdbench.api import Data, Dataset, UserError, unknown
from kdbench.data import image_parquet, tree
from kdbench.data.decode import Unlike, opened
from kdbench.data.decoded import contents, decoded
from kdbench.data.images import Form, Found, Part, check_items, check_labels
from kdbench.data.splits import column, splits
from kdbench.tasks import Task

PREFIX = "folder:"
TEXT = re.compile(r"(?P<path>.+?)(@(?P<size>\d+))?(\?label=(?P<label>.+))?")


def image_folder(text: str) -> Dataset:
    """The dataset of `PATH[@SIZE][?label=COLUMN]`, the text behind "folder:".

    PATH holds train/CLASS/image and test (or val) likewise, or parquet files of each
    split; labels are the places of the sorted class names, or those of the column.
    Images have one size, or with @SIZE the shorter side is resized to it and the centre
    cut out (bilinear, antialiased as PIL does it). All are RGB, or all grey.

    Raises UserError where there is no such folder, or it does not say what is what.
    """
    match = TEXT.fullmatch(text)
    root = Path(match["path"]).expanduser() if match else Path()
    if not match or not root.is_dir():
        raise UserError(f"{PREFIX}{text}: there is no folder {root}")
    if match["size"] and not int(match["size"]):
        raise UserError(f"{PREFIX}{text}: a size of 0 pixels; leave @0 out")
    label, size = match["label"] or "", int(match["size"] or 0)
    as_tree = tree.find(root)
    found = as_tree or image_parquet.find(root)
    if found is None:
        raise UserError(
            f"{PREFIX}{text}: {root} holds neither train/CLASS/IMAGE and test/CLASS/"
            "IMAGE (or val),\n  nor train-*.parquet and test-*.parquet"
        )
    parts = found.read()
    check_items(parts, {}, root)
    where = f"{PREFIX}{root}?label=COLUMN"
    for part in parts.values():
        if label and label not in part.labels:
            raise unknown("label column", label, part.labels, where)
    labels = column(parts["train"].labels, label, where)
    classes = int(labels.max()) + 1
    if classes < 2:
        raise UserError(f"{PREFIX}{text}: there is only one class to tell apart")
    if classes > parts["train"].items:
        place = parts["train"].where(int(labels.argmax()))
        raise UserError(
            f"{root / place}: label {labels.max():,} is more than there are training "
            f"images ({parts['train'].items:,}); labels count classes from 0"
        )
    for part in parts.values():
        check_labels(column(part.labels, label, where), classes, part.shards, root)
    form = _form(parts["train"], size)
    names = tuple(tree.classes(root)) if as_tree else ()
    counts = ", ".join(f"{part.items:,} {split}" for split, part in parts.items())
    return Dataset(
        name=PREFIX + text,
        summary=f"{counts} images of {classes} classes in {root}",
        source=str(root),
        task=Task(outputs=classes, labels=names),
        input_shape=form.shape,
        load=partial(load, found=found, form=form, label=label, classes=classes),
        version=contents(found),
    )


def load(
    data_dir: Path | None,  # noqa: ARG001 - the path says where it is
    download: bool,  # noqa: ARG001 - likewise
    *,
    found: Found,
    form: Form,
    label: str,
    classes: int,
) -> Data:
    """The decoded images, (N, C, H, W) uint8; mean and std are of the training set.

    Raises UserError where images differ in size or mode, or one is damaged.
    """
    try:
        images = decoded(found, form)
    except Unlike as error:
        raise _surveyed(found, form, error) from None
    train, test = splits(images, label, classes, found.root)
    return Data(
        train=train,
        test=test,
        mean=images.mean,
        std=images.std,
        notes=(*images.notes, *_absent(train.targets.numpy(), classes)),
    )


def _form(train: Part, size: int) -> Form:
    """As the first training image is: its size, unless one was given, and channels."""
    assert train.encoded is not None  # noqa: S101 - trees and parquet have no pixels
    with opened(next(train.encoded())) as first:
        channels = 1 if first.mode == "L" else 3
        height, width = (size, size) if size else (first.height, first.width)
    return Form(shape=(channels, height, width), resized=bool(size))


def _absent(labels: np.ndarray, classes: int) -> list[str]:
    absent = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
    if not len(absent):
        return []
    some = ", ".join(str(number) for number in absent[:5])
    more = ", ..." if len(absent) > 5 else ""
    return [f"{len(absent)} of {classes} classes have no training image: {some}{more}"]


def _surveyed(found: Found, form: Form, first: Unlike) -> UserError:
    """What all images are like, where one was unlike the first."""
    sizes: Counter[tuple[int, int]] = Counter()
    modes: dict[str, list[str]] = {}
    for where, size, mode in _headers(found.read()):
        sizes[size] += 1
        modes.setdefault(mode, []).append(where)
    if len(sizes) > 1 and not form.resized:
        low, high = min(sizes), max(sizes)
        return UserError(
            f"{first}\n  the images in {found.root} have {len(sizes)} sizes, from "
            f"{low[0]}x{low[1]} to {high[0]}x{high[1]}: append @SIZE to the name "
            "(folder:PATH@64) to resize the shorter side and cut the centre out"
        )
    counts = ", ".join(f"{len(places):,} {mode}" for mode, places in modes.items())
    odd = min((m for m in modes if m != "RGB"), key=lambda m: len(modes[m]), default="")
    if not odd:  # the files changed meanwhile
        return first
    return UserError(
        f"{modes[odd][0]}: an image of mode {odd} where RGB was expected; the images "
        f"in {found.root} are {counts}: convert them all to RGB, or to grey"
    )


def _headers(parts: Mapping[str, Part]) -> list[tuple[str, tuple[int, int], str]]:
    """Place, size and mode of every image."""
    headers = []
    for part in parts.values():
        assert part.encoded is not None  # noqa: S101 - as above
        for image in part.encoded():
            with opened(image) as picture:
                headers.append((image.place, picture.size, picture.mode))
    return headers
