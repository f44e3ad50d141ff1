"""How a process computes on its device: threads, memory, and what a GPU may choose."""

from __future__ import annotations

import ctypes
import os
from functools import cache

import torch
from torch import Tensor

# of glibc's malloc.h
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4

KEPT = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 64 * 2**20}
"""mallopt's settings, in bytes: buffers never lie in mappings of their own, and what is
freed stays with the process."""

WORKSPACES = ":4096:8"
"""Of cuBLAS, in KiB and pieces: with these its sums have one order, too."""


def settle(device: torch.device, threads: int, deterministic: bool) -> None:
    """Make the process ready to train; to be called before the GPU is first used.

    `deterministic` keeps a GPU to algorithms that add up in one order, and torch raises
    an error for what has none. A CPU always does for the same number of threads.
    """
    torch.set_num_threads(threads)
    keep_memory()
    if device.type == "cuda":
        if device.index is not None:  # streams and events are those of the current one
            torch.cuda.set_device(device)
        _settle_gpu(deterministic)


def _settle_gpu(deterministic: bool) -> None:
    """float32 is float32 (TF32 has ten bits of it); the fastest algorithms by trial."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACES)  # read once only
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic)


@cache
def keep_memory() -> bool:
    """Keep what is freed for the next step, once per process; whether malloc obeys.

    glibc hands big buffers back to the system, which clears them page by page when the
    next step asks for them again. Other C libraries are left alone.
    """
    if not has_glibc():
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(what, value) for what, value in KEPT.items())


def on_device(draws: Tensor, device: torch.device) -> Tensor:
    """What was drawn or read on the CPU, on the device; a GPU is not waited for.

    A GPU fetches pinned memory in the course of its own work.
    """
    if device.type != "cuda" or draws.device.type != "cpu":
        return draws.to(device)
    return draws.pin_memory().to(device, non_blocking=True)


def has_glibc() -> bool:
    name = "CS_GNU_LIBC_VERSION"
    return name in getattr(os, "confstr_names", {}) and bool(os.confstr(name))
