"""What the machine does to a training, told apart from what a strategy does.

A strategy's own error fails its run. A fault of the machine would fail every run, one
after another, through none of their doing: it passes through the learners' guards.
"""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from kdbench.atomic import Unwritable
from kdbench.settings import Meddled


def reason_of(error: BaseException) -> str:
    """One line: what was raised, where in the plugin's own code, and notes on it."""
    frames = traceback.extract_tb(error.__traceback__)
    words = " ".join(str(error).split())
    if isinstance(error, Meddled):
        return words
    what = f"{type(error).__name__}: {words[:300]}".rstrip(": ")
    if frames:
        own = [frame for frame in frames if _is_plugins(frame.filename)]
        last = (own or frames)[-1]
        what = f"{what} ({last.filename.rpartition('/')[2]}:{last.lineno})"
    return "; ".join([what, *getattr(error, "__notes__", ())])


def _is_plugins(file: str) -> bool:
    """Whether it is neither ours, nor torch's, nor Python's own."""
    path = Path(file)
    places = [Path(__file__).parents[1], Path(torch.__file__).parent]
    if "site-packages" not in path.parts:
        places.append(Path(os.__file__).parent)
    return path.is_file() and not any(path.is_relative_to(place) for place in places)


class OutOfMemory(Exception):
    """There was no memory for a step; fewer runs at a time need less."""


class DeviceLost(Exception):
    """The device no longer answers; nothing that lies on it can be saved."""


NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "bad_alloc",
    "_status_alloc_failed",  # of cuBLAS and cuDNN
)
"""Words of a RuntimeError that tells of memory (lower case)."""

NO_DEVICE = (
    "device-side assert",
    "illegal memory access",
    "illegal instruction was encountered",
    "misaligned address",
    "unspecified launch failure",
    "launch timed out",
    "uncorrectable ecc",
    "no cuda-capable device",
    "busy or unavailable",
    "device is lost",
    "gpu is lost",
    "device was removed",
)
"""Words after which nothing works on the device until its process ends (lower case)."""

ASSERTED = (
    "; a device-side assert can also be a strategy's own fault, an index out of range "
    "for example: with --device cpu it fails alone, and says where"
)


def raise_if_machine(error: BaseException, device: torch.device, where: str) -> None:
    """Raise the fault of the machine that this error tells of, if it does."""
    if isinstance(error, OutOfMemory | DeviceLost | Unwritable):
        raise error
    words = " ".join(str(error).split())
    if is_out_of_memory(error):
        raise OutOfMemory(
            f"{words[:200] or type(error).__name__}, in {where}"
        ) from error
    if _is_loss(error) or not _answers(device):
        hint = ASSERTED if "device-side assert" in words.lower() else ""
        raise DeviceLost(
            f"device {device} no longer answers ({words[:200]}; noticed in {where}); "
            "finished runs and checkpoints are kept: the same command goes on from "
            f"there{hint}"
        ) from error


@contextmanager
def told_apart(device: torch.device, where: str) -> Iterator[None]:
    """Faults of the machine come out as such, other errors as they are."""
    try:
        yield
    except Exception as error:
        raise_if_machine(error, device, where)
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it tells that memory ran out, the machine's or a device's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _says(error, NO_MEMORY)


def _is_loss(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and _says(error, NO_DEVICE)


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return any(word in text for word in words)


def _answers(device: torch.device) -> bool:
    """Whether the device still computes, whatever the error at hand is about."""
    if device.type == "cpu":
        return True
    try:
        (torch.zeros(1, device=device) + 1).item()
    except Exception as error:  # noqa: BLE001 - whatever a broken device says
        return is_out_of_memory(error)
    return True


def release_memory() -> None:
    """Hand back what nobody refers to any more, on the devices too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
