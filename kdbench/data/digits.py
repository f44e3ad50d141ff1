"""The embedded dataset: scikit-learn's 1,797 scanned digits of 8x8 grey pixels.

Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI repository
(the test part of it, which scikit-learn carries).
"""

from __future__ import annotations

from pathlib import Path

import torch

from kdbench.api import Data, Dataset, Split
from kdbench.data import class_names
from kdbench.tasks import Head, Task

TEST_ITEMS = 450
GREY = 15
WHICH = Task(outputs=10, labels=class_names.DIGITS)


def load(data_dir: Path | None, download: bool) -> Data:  # noqa: ARG001 - embedded
    """A fixed stratified split: 1,347 train, 450 test; nothing is read from disk.

    Inputs are (N, 1, 8, 8) uint8 from 0 to 240, `GREY` for each of the 16 grey levels:
    what works on images expects the whole range of a byte.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    train, test = train_test_split(
        range(len(digits.target)),
        test_size=TEST_ITEMS,
        random_state=0,
        stratify=digits.target,
    )
    inputs = torch.tensor(GREY * digits.images, dtype=torch.uint8).unsqueeze(1)
    targets = torch.tensor(digits.target, dtype=torch.int64)
    known = inputs[train].double()
    return Data(
        train=Split(inputs=inputs[train], targets=targets[train]),
        test=Split(inputs=inputs[test], targets=targets[test]),
        mean=(known.mean().item(),),
        std=(known.std(correction=0).item(),),
    )


def load_with_ink(data_dir: Path | None, download: bool) -> Data:
    """The same images; targets (N, 2): the digit, and its mean grey level (0 to 16)."""
    data = load(data_dir, download)

    def both(split: Split) -> Split:
        ink = split.inputs.float().mean((1, 2, 3)) / GREY
        targets = torch.stack([split.targets.float(), ink], 1)
        return Split(inputs=split.inputs, targets=targets)

    return Data(
        train=both(data.train), test=both(data.test), mean=data.mean, std=data.std
    )


DIGITS = Dataset(
    name="digits",
    summary="1,797 real scanned digits, 8x8 grey; embedded, nothing to download",
    source="Alpaydin & Kaynak 1998, UCI; carried by scikit-learn",
    task=WHICH,
    input_shape=(1, 8, 8),
    load=load,
    embedded=True,
)

DIGITS_AND_INK = Dataset(
    name="digits_and_ink",
    summary="the same digits with two heads: which digit, and how much ink",
    source=DIGITS.source,
    task=Task.several(
        Head(name="digit", task=WHICH),
        Head(name="ink", task=Task(kind="regression", outputs=1, unit="grey levels")),
    ),
    input_shape=(1, 8, 8),
    load=load_with_ink,
    embedded=True,
)
