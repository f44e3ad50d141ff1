"""The machine's faults are told from a strategy's own errors."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from kdbench.atomic import Unwritable
from kdbench.engine import faults
from kdbench.engine.faults import DeviceLost, OutOfMemory, raise_if_machine, told_apart

CPU = torch.device("cpu")


def caught(act):
    with pytest.raises((RuntimeError, MemoryError)) as info:
        act()
    return info.value


def told(error):
    try:
        raise_if_machine(error, CPU, "kd, epoch 2")
    except (OutOfMemory, DeviceLost, Unwritable) as fault:
        return type(fault), str(fault)
    return None, ""


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError(
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"
        ),
    ],
    ids=str,
)
def test_out_of_memory(error):
    kind, words = told(error)
    assert kind is OutOfMemory
    assert words.endswith("in kd, epoch 2")


def test_what_torch_and_numpy_really_raise_is_out_of_memory():
    for act in (
        lambda: torch.empty(2**60, dtype=torch.uint8),
        lambda: np.ones(2**58),
    ):
        assert told(caught(act))[0] is OutOfMemory


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: device-side assert triggered",
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: unspecified launch failure",
        "CUDA error: no CUDA-capable device is detected",
        "CUDA error: all CUDA-capable devices are busy or unavailable",
    ],
)
def test_a_lost_device(words):
    kind, text = told(RuntimeError(f"{words}\nCompile with `TORCH_USE_CUDA_DSA`"))
    assert kind is DeviceLost
    assert words in text
    assert "the same command" in text
    assert ("an index out of range" in text) == ("assert" in words)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling cublasGemm"),
        ValueError("the strategy ran out of memory banks: out of memory"),
        FileNotFoundError("no such bank"),
        SystemExit(3),
    ],
    ids=str,
)
def test_a_strategys_own_error(error):
    assert told(error) == (None, "")


def test_any_error_on_a_device_that_no_longer_answers_is_its_loss(monkeypatch):
    gpu = torch.device("cuda", 1)
    error = KeyError("whatever it was wrapped in")
    monkeypatch.setattr(faults, "_answers", lambda device: device != gpu)
    raise_if_machine(error, CPU, "kd")
    with pytest.raises(DeviceLost, match="device cuda:1 no longer answers"):
        raise_if_machine(error, gpu, "kd")


def test_a_device_that_is_not_there_does_not_answer():
    assert not faults._answers(torch.device("cuda", 99))
    assert faults._answers(CPU)


def test_faults_pass_through_several_guards_as_they_are():
    with pytest.raises(OutOfMemory) as first:
        raise_if_machine(MemoryError("here"), CPU, "kd")
    with pytest.raises(OutOfMemory) as second, told_apart(CPU, "the group"):
        raise first.value
    assert second.value is first.value
    with pytest.raises(KeyError), told_apart(CPU, "the group"):
        raise KeyError("its own")
    lost = DeviceLost("device cuda:0 no longer answers")
    assert str(pickle.loads(pickle.dumps(lost))) == str(lost)  # noqa: S301 - our own
