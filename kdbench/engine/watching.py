"""Watching a step for what a graph could not repeat: what Python itself does in it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.api import Batch

CHANGING = ("progress", "epoch", "generator")
"""What a batch has that is Python's: a replay would repeat the captured step's."""

COPYING = replace.__globals__
"""Where a reading of a batch's fields only copies them."""

OF_EVERY_MODULE = frozenset(vars(nn.Module()))

DEPTH = 3
"""How deep collections of collections are looked into."""


def watching() -> tuple[type[Batch], set[str]]:
    """A kind of batch, and what is read of it in the course of time, by `CHANGING`."""
    read: set[str] = set()

    class Watched(Batch):
        __slots__ = ()

        def __getattribute__(self, name: str) -> Any:
            # a copy (dataclasses.replace) reads all fields, and is watched in its turn
            if name in CHANGING and sys._getframe(1).f_globals is not COPYING:
                read.add(name)
            return object.__getattribute__(self, name)

    return Watched, read


def python_state(owner: object, *parts: nn.Module) -> list[object]:
    """What Python keeps in these modules and the owner, and where their tensors are.

    Equal before and after a step that leaves both alone; what tensors hold may change.
    """
    found: list[object] = [_known(list(vars(owner).values()))]
    for part in parts:
        for module in part.modules():
            own = [v for k, v in vars(module).items() if k not in OF_EVERY_MODULE]
            found.append(_known([*module._parameters.values(), *own]))
            found.append(_known(list(module._buffers.values())))
    return found


def _known(value: object, depth: int = DEPTH) -> object:
    """Something of a value that differs once it is another one."""
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        return id(value), value.data_ptr()
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, Mapping) and depth:
        return [(_known(k, 0), _known(v, depth - 1)) for k, v in value.items()]
    if isinstance(value, Sequence) and depth:
        return [_known(item, depth - 1) for item in value]
    return id(value), len(value) if isinstance(value, Sized) else 0
