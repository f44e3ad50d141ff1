"""What a process is set to before it trains."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from kdbench.engine import device
from kdbench.engine.device import has_glibc, settle

CPU, GPU = torch.device("cpu"), torch.device("cuda")

# buffers that a step needs together and frees together, some above 32 MiB
STEPS = """
import resource, sys
import torch
from kdbench.engine.device import keep_memory
torch.set_num_threads(1)
if sys.argv[1] == "kept":
    assert keep_memory()
def step():
    return [torch.ones(2**20 * n) for n in (1, 2, 3, 12)]
for _ in range(10):  # until freed places fit what is asked for
    step()
def now():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_minflt, used.ru_maxrss
faults, most = now()
for _ in range(10):
    step()
print(now()[0] - faults, now()[1] - most)
"""


@pytest.fixture
def _as_before(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    flags = [(cuda, "allow_tf32"), (cudnn, "allow_tf32")]
    flags += [(cudnn, "benchmark"), (cudnn, "deterministic")]
    before = [getattr(*flag) for flag in flags]
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    for flag, value in zip(flags, before, strict=True):
        setattr(*flag, value)
    torch.use_deterministic_algorithms(deterministic)


def faults_and_growth(how):
    done = subprocess.run(
        [sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True
    )
    return [int(number) for number in done.stdout.split()]


@pytest.mark.skipif(not has_glibc(), reason="this system's C library is not glibc")
def test_freed_buffers_stay_with_the_process():
    faults, _ = faults_and_growth("given back")
    kept, growth = faults_and_growth("kept")
    assert faults > 10_000  # 72 MiB in pages of 4 KiB, ten times
    assert kept < faults / 20
    assert growth < 20_000  # KiB


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(device, "has_glibc", lambda: False)
    monkeypatch.setattr(device.ctypes, "CDLL", None)
    device.keep_memory.cache_clear()
    try:
        assert device.keep_memory() is False
    finally:
        device.keep_memory.cache_clear()


def test_a_system_without_confstr_has_no_glibc(monkeypatch):
    monkeypatch.delattr(os, "confstr_names", raising=False)
    assert not has_glibc()


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_gpu_computes_float32_and_in_one_order_if_asked(deterministic):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    settle(GPU, 1, not deterministic)
    settle(GPU, 1, deterministic)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.benchmark is not deterministic
    assert torch.backends.cudnn.deterministic is deterministic
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.usefixtures("_as_before")
def test_workspaces_that_the_user_chose_stay(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    settle(GPU, 1, True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.usefixtures("_as_before")
def test_on_a_cpu_only_threads_and_memory_are_set():
    torch.backends.cudnn.benchmark = False
    settle(CPU, 2, True)
    assert torch.get_num_threads() == 2
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
