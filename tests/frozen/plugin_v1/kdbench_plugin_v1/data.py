"""A dataset, and further ones by a prefix."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from kdbench import Data, Dataset, Split, Task, UserError

CLASSES, WIDTH = 3, 6


def blobs(name: str, items: int) -> Dataset:
    return Dataset(
        name=name,
        summary=f"{items} points around {CLASSES} centres",
        source="made up",
        task=Task(outputs=CLASSES, labels=("left", "right", "up")),
        input_shape=(WIDTH,),
        load=partial(load, items=items),
        embedded=True,
        version="1",
    )


def load(data_dir: Path | None, download: bool, items: int) -> Data:
    stream = torch.Generator().manual_seed(7)
    centres = torch.randn(CLASSES, WIDTH, generator=stream)

    def split() -> Split:
        targets = torch.arange(items) % CLASSES
        noise = torch.randn(items, WIDTH, generator=stream)
        return Split(inputs=centres[targets] + 0.5 * noise, targets=targets)

    zeros, ones = (0.0,) * WIDTH, (1.0,) * WIDTH
    notes = ("the points are made up",)
    return Data(train=split(), test=split(), mean=zeros, std=ones, notes=notes)


def find(rest: str, host: Any) -> Dataset:
    if not rest.isdigit():
        raise UserError(f"v1blobs:{rest}: write a number of points")
    return blobs(f"v1blobs:{rest}", int(rest))
