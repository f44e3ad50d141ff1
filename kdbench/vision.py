"""The one door to torchvision: nothing else in kdbench imports it."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[object] = []


@cache
def torchvision(module: str) -> ModuleType:
    """Import `torchvision.<module>`.

    A torchvision wheel built for CUDA cannot load its extension beside a CPU build of
    torch, and then dies on two operators it takes for granted. Defining their schemas
    makes datasets, models and transforms work; box operators stay unavailable.
    """
    try:
        return import_module(f"torchvision.{module}")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    import sys

    import torch

    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # the half-imported attempt
    library: Any = torch.library
    known = library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        known.define(schema)
    _kept.append(known)  # the definitions live as long as this object
    return import_module(f"torchvision.{module}")
