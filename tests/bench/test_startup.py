"""Start-up: `kdbench --help` against an empty Python, paired in one run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

BAR_S = 0.2
ROUNDS = 15
KDBENCH = Path(sys.executable).with_name("kdbench")


def seconds(command):
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


@pytest.mark.benchmark(group="start-up")
def test_help(benchmark):
    empty = [sys.executable, "-c", "pass"]
    pairs = [(seconds([KDBENCH, "--help"]), seconds(empty)) for _ in range(ROUNDS)]
    ours, python = (statistics.median(column) for column in zip(*pairs, strict=True))
    benchmark.pedantic(seconds, args=([KDBENCH, "--help"],), rounds=5, warmup_rounds=1)
    benchmark.extra_info.update(help_s=ours, python_s=python, bar_s=BAR_S)
    verdict = "reached" if ours < BAR_S else "missed"
    print(
        f"\nkdbench --help: {ours * 1e3:.0f} ms, python -c pass: {python * 1e3:.0f} ms "
        f"(medians of {ROUNDS} pairs); bar {BAR_S * 1e3:.0f} ms: {verdict}"
    )
    assert ours < BAR_S
