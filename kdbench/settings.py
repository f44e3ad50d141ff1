"""Settings of the process that change what other code computes, and putting them back.

They belong to the engine and the user; a plugin that changes one would change the bits
of everybody after it. Reading them all takes some ten microseconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

BACKENDS: Any = torch.backends
CUDNN: Any = torch.backends.cudnn
MATMUL: Any = torch.backends.cuda.matmul
MKLDNN: Any = torch.backends.mkldnn
BY_BACKEND = hasattr(BACKENDS, "fp32_precision")
"""Whether precisions can be set for each backend: since torch 2.9."""

MIXED = "another one for some backends"
WHOLE = "for the whole process"
TINY = 5e-324
"""The smallest number there is; 0 where such numbers are flushed."""


class Meddled(Exception):
    """A plugin changed a setting of the process; the words are the whole reason."""


def _precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # so torch answers where backends differ
        return MIXED


def _set_precision(value: str) -> None:
    if BY_BACKEND:
        for place in (BACKENDS.cuda.matmul, BACKENDS.mkldnn.matmul):
            place.fp32_precision = "none"  # as all together say
    torch.set_float32_matmul_precision(value)


def _set_precision_of_cudnn(value: str) -> None:
    CUDNN.allow_tf32 = value == "tf32"  # of both ways to say it
    CUDNN.conv.fp32_precision = value
    CUDNN.rnn.fp32_precision = value


CHOSEN = getattr(torch, "_GLOBAL_DEVICE_CONTEXT", None)
"""Where torch keeps the default device; to ask in public takes half of all time."""


def _device() -> torch.device | None:
    """Where new tensors are; None for the CPU, to which torch goes back by None."""
    if CHOSEN is not None and getattr(CHOSEN, "device_context", None) is None:
        return None
    device: torch.device = torch.get_default_device()
    return None if device.type == "cpu" else device


def _folder() -> str | None:
    """None where it has been removed."""
    try:
        return os.getcwd()  # noqa: PTH109 - asked for in every step
    except FileNotFoundError:
        return None


def _attribute(of: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    return lambda: getattr(of, name), lambda value: setattr(of, name, value)


def _set_warn_only(value: bool) -> None:
    enabled = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(enabled, warn_only=value)


def _set_reductions(values: tuple[Any, Any]) -> None:
    MATMUL.allow_fp16_reduced_precision_reduction = values[0]
    MATMUL.allow_bf16_reduced_precision_reduction = values[1]


def _precisions() -> dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]]:
    if not BY_BACKEND:
        return {"cuDNN's float32 precision": _attribute(CUDNN, "allow_tf32")}
    return {
        "torch's float32 precision": _attribute(BACKENDS, "fp32_precision"),
        "cuDNN's float32 precision": (
            lambda: CUDNN.conv.fp32_precision,
            _set_precision_of_cudnn,
        ),
    }


_SETTINGS: Mapping[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": (_device, torch.set_default_device),
    "torch's grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's deterministic algorithms": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "torch's float32 matmul precision": (_precision, _set_precision),
    "torch's autocast": (
        lambda: torch.is_autocast_enabled("cpu"),
        lambda value: torch.set_autocast_enabled("cpu", value),
    ),
    "torch's anomaly detection": (
        torch.is_anomaly_enabled,
        torch.autograd.set_detect_anomaly,
    ),
    "torch's flushing of denormals": (
        lambda: TINY * 1.0 == 0.0,
        torch.set_flush_denormal,
    ),
    "torch's warn-only mode of deterministic algorithms": (
        torch.is_deterministic_algorithms_warn_only_enabled,
        _set_warn_only,
    ),
    "torch's autocast dtype": (
        lambda: torch.get_autocast_dtype("cpu"),
        lambda value: torch.set_autocast_dtype("cpu", value),
    ),
    "oneDNN": _attribute(MKLDNN, "enabled"),
    "cuDNN": _attribute(CUDNN, "enabled"),
    "cuBLAS's sums in half precision": (
        lambda: (
            MATMUL.allow_fp16_reduced_precision_reduction,
            MATMUL.allow_bf16_reduced_precision_reduction,
        ),
        _set_reductions,
    ),
    "cuDNN's benchmark mode": _attribute(CUDNN, "benchmark"),
    "cuDNN's deterministic mode": _attribute(CUDNN, "deterministic"),
    "the working directory": (_folder, os.chdir),
    **_precisions(),
}


def settings() -> dict[str, object]:
    """What they are now, by name."""
    return {name: get() for name, (get, _) in _SETTINGS.items()}


def put_back(before: Mapping[str, object]) -> list[str]:
    """Make them what they were; the names of those that had changed."""
    now = settings()
    if now == before:
        return []
    changed = [name for name, value in now.items() if value != before[name]]
    for name in changed:
        _SETTINGS[name][1](before[name])
    return changed


@contextmanager
def kept() -> Iterator[None]:
    """Afterwards they are what they were; raises Meddled where one had changed.

    What is raised inside passes through, with a note of what had changed.
    """
    before = settings()
    try:
        yield
    except BaseException as error:
        changed = put_back(before)
        if changed:
            error.add_note(_told(changed))
        raise
    changed = put_back(before)
    if changed:
        raise Meddled(_told(changed))


def _told(changed: Sequence[str]) -> str:
    return f"changed {' and '.join(changed)}, {WHOLE}"
