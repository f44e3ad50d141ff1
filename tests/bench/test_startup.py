"""Start-up: `kdbench --help` against an empty Python, paired in one run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rows import Row

BAR_MS = 200
ROUNDS = 15
KDBENCH = Path(sys.executable).with_name("kdbench")


def seconds(command):
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


@pytest.mark.benchmark(group="start-up")
def test_help(reached, benchmark):
    empty = [sys.executable, "-c", "pass"]
    pairs = [(seconds([KDBENCH, "--help"]), seconds(empty)) for _ in range(ROUNDS)]
    ours, python = (statistics.median(column) for column in zip(*pairs, strict=True))
    benchmark.pedantic(seconds, args=([KDBENCH, "--help"],), rounds=5, warmup_rounds=1)
    row = Row(
        name="kdbench --help; naive: python -c pass",
        value=1e3 * ours,
        bar=BAR_MS,
        kind="amount",
        better="lower",
        ours=1e3 * ours,
        naive=1e3 * python,
        unit="ms",
        pairs=ROUNDS,
    )
    reached(row)
