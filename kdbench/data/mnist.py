"""MNIST through torchvision's own loader. LeCun, Cortes & Burges 1998."""

from __future__ import annotations

from pathlib import Path

from kdbench.api import Data, Dataset, Split, UserError
from kdbench.tasks import Task
from kdbench.vision import torchvision

MEAN, STD = 0.1307, 0.3081
"""Of the training pixels scaled to [0, 1], as published."""


def load(data_dir: Path | None, download: bool) -> Data:
    """Read `<data_dir>/MNIST/raw`. Inputs are (N, 1, 28, 28) uint8.

    Raises UserError where the files are missing, unreadable or incomplete.
    """
    if data_dir is None:
        raise UserError(
            "dataset 'mnist' needs files: name their folder with --data-dir DIR or "
            "KDBENCH_DATA\n  (the one that holds MNIST/raw), and add --download to "
            "fetch them where there is a network"
        )
    train = _split(data_dir, True, download, 60_000)
    test = _split(data_dir, False, download, 10_000)
    return Data(train=train, test=test, mean=(255 * MEAN,), std=(255 * STD,))


def _split(data_dir: Path, train: bool, download: bool, items: int) -> Split:
    try:
        found = torchvision("datasets").MNIST(data_dir, train=train, download=download)
    except (RuntimeError, OSError, ValueError) as error:
        doing = "could not be downloaded to" if download else "not found in"
        raise UserError(
            f"dataset 'mnist' {doing} {data_dir}: {error}\n"
            f"  expected torchvision's layout, {data_dir}/MNIST/raw/*-ubyte; "
            "--download fetches it where there is a network"
        ) from error
    if len(found.data) != items or len(found.targets) != items:
        raise UserError(
            f"dataset 'mnist' in {data_dir}: {len(found.data)} images and "
            f"{len(found.targets)} labels instead of {items}; fetch the files again"
        )
    return Split(inputs=found.data.unsqueeze(1), targets=found.targets.long())


MNIST = Dataset(
    name="mnist",
    summary="60,000 / 10,000 handwritten digits, 28x28 grey",
    source="LeCun, Cortes & Burges 1998 (CC BY-SA 3.0)",
    task=Task(outputs=10),
    input_shape=(1, 28, 28),
    load=load,
)
