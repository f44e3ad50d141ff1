"""A teacher's answers to the whole training set, where its inputs never change.

They are computed once, in order and in blocks of a fixed size: their bits depend on the
dataset and the teacher alone, not on the order of the batches or who asks when.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from types import MappingProxyType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from kdbench.api import Outputs
from kdbench.atomic import Unwritable
from kdbench.engine.feed import Feed

KEPT = ("logits", "pooled")
"""What is kept. Maps of features would take a thousand times the memory."""

MEMORY_BYTES = 2**30
"""A group's answers beyond it lie in a file."""


class Rows(Protocol):
    """(N, ...) float32, filled from the first row on, then read by position."""

    def append(self, block: Tensor) -> None: ...

    def at(self, index: Tensor) -> Tensor: ...


class InMemory:
    """Rows on the device that they are computed on."""

    def __init__(self, items: int, like: Tensor):
        self._rows = torch.empty(items, *like.shape[1:], device=like.device)
        self._filled = 0

    def append(self, block: Tensor) -> None:
        self._rows[self._filled : self._filled + len(block)] = block
        self._filled += len(block)

    def at(self, index: Tensor) -> Tensor:
        return self._rows.index_select(0, index)


class InFile:
    """Rows in a file without a name, gone with the process however that ends."""

    def __init__(self, items: int, like: Tensor, folder: Path | None):
        self._shape = (items, *like.shape[1:])
        self._device = like.device
        self._folder = folder or gettempdir()
        self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115 - kept while in use
        self._rows: np.memmap[tuple[int, ...], np.dtype[np.float32]] | None = None

    def append(self, block: Tensor) -> None:
        rows = block.cpu().contiguous().numpy()
        try:
            self._file.write(rows.tobytes())
            self._file.flush()
        except OSError as error:
            what = f"the teacher's answers in {self._folder}"
            raise Unwritable(error.errno, error.strerror, what) from error

    def at(self, index: Tensor) -> Tensor:
        if self._rows is None:
            self._rows = np.memmap(self._file, np.float32, "r", shape=self._shape)
        found = torch.from_numpy(self._rows[index.cpu().numpy()])
        return found.to(self._device)


class Answers:
    """What one teacher says of every training item: logits, and "pooled" if tapped."""

    def __init__(
        self,
        teacher: Callable[[Tensor], Outputs],
        feed: Feed,
        memory: int,
        folder: Path | None = None,
    ):
        """Ask it about all items; `memory` is how many bytes may stay in memory.

        More lies in a temporary file in `folder`; Unwritable where the disk is full.
        """
        self.held = 0
        self.batches = -(-feed.items // feed.recipe.batch_size)
        self._rows: dict[str, Rows] = {}
        self._classifier = None
        for step in feed.in_order():
            with torch.no_grad():
                outputs = teacher(step.inputs)
            for name, block in _kept(outputs).items():
                if name not in self._rows:
                    self._rows[name] = self._place(feed.items, block, memory, folder)
                self._rows[name].append(block)
            self._classifier = outputs.classifier

    def _place(
        self, items: int, like: Tensor, memory: int, folder: Path | None
    ) -> Rows:
        size = items * like[0].numel() * torch.float32.itemsize
        if self.held + size > memory:
            return InFile(items, like, folder)
        self.held += size
        return InMemory(items, like)

    def at(self, index: Tensor) -> Outputs:
        """What it says of the items at (B,) positions: tensors of their own."""
        found = {name: rows.at(index) for name, rows in self._rows.items()}
        logits = found.pop("logits")
        return Outputs(logits, MappingProxyType(found), self._classifier)


def _kept(outputs: Outputs) -> dict[str, Tensor]:
    values = {**outputs.features, "logits": outputs.logits}
    return {name: values[name].float() for name in KEPT if name in values}
