"""Settings of the process that change what other code computes, and putting them back.

They belong to the engine and the user; a plugin that changes one would change the bits
of everybody after it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch

_SETTINGS: Mapping[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's deterministic algorithms": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "torch's float32 matmul precision": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "torch's anomaly detection": (
        torch.is_anomaly_enabled,
        torch.autograd.set_detect_anomaly,
    ),
    "the working directory": (os.getcwd, os.chdir),
}


def settings() -> dict[str, object]:
    """What they are now, by name."""
    return {name: get() for name, (get, _) in _SETTINGS.items()}


def put_back(before: Mapping[str, object]) -> list[str]:
    """Make them what they were; the names of those that had changed."""
    changed = [name for name, value in settings().items() if value != before[name]]
    for name in changed:
        _SETTINGS[name][1](before[name])
    return changed
